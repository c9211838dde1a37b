"""The position in AWS DMS's `stream-position`, which has a form for each engine; an unknown form is never ranked.

PostgreSQL's is `LSN.n.LSN`. MySQL's is `file:position:row:next:transaction:file:begin` of the binary log (AWS's guide and the
samples of a DMS task show both; the guide names no field, so what the fields must be to each other is looked at). Of SQL
Server and Oracle the guide says that it is an LSN and an SCN, and shows neither.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from transforms.positions.sequence import NoPositionError, position_of, shape

_POSTGRESQL = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})\.(\d{1,19})\.([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_BINLOG = re.compile(r"[^:\n]*\.(\d{1,19}):(\d{1,19}):(-1|\d{1,18}):(\d{1,19}):\d{1,20}:[^:\n]*\.(\d{1,19}):(\d{1,19})")
_WITHOUT = "; without IncludeTransactionDetails the stream's own order ranks (docs/engines.md)"


def source_position(stream_position: Any) -> str:
    """Read a change's position; raises NoPositionError, with the form that came, for one that is not known."""
    if isinstance(stream_position, str):
        for form, position in _FORMS:
            if match := form.fullmatch(stream_position):
                return position(match)
    msg = f"stream-position is {shape(stream_position)}, a form whose order is not known{_WITHOUT}"
    raise NoPositionError(msg)


def _postgresql(match: re.Match[str]) -> str:
    """The LSN of the commit, that of the change, and its number, which is not padded: the text itself does not sort."""
    high, low, count, high2, low2 = match.groups()
    return position_of(int(high.zfill(8) + low.zfill(8), 16), int(high2.zfill(8) + low2.zfill(8), 16), int(count))


def _binlog(match: re.Match[str]) -> str:
    """The file's number, the event's position and the row in it; -1 stands before the first row.

    An event lies between the begin of its transaction, in the same file, and the next event.
    """
    file, at, row, following, begin_file, begin = map(int, match.groups())
    if begin_file != file or not begin <= at <= following:
        msg = f"stream-position is {shape(match[0])}, but its event is outside of its transaction{_WITHOUT}"
        raise NoPositionError(msg)
    return position_of(file, at, row + 1)


_FORMS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (_POSTGRESQL, _postgresql),
    (_BINLOG, _binlog),
)
"""Those of PostgreSQL, and of MySQL and MariaDB."""

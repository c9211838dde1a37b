"""Where a Debezium record stands in its source's own log, by connector (I1); one function an engine.

Fields of `source` are those of Debezium's `*SourceInfoStructMaker` classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from transforms.positions.sequence import position_of, postgresql_position

_LSNS = re.compile(r'\[ *(?:null|"?([0-9]{1,20})"?) *, *(?:null|"?([0-9]{1,20})"?) *\]')
_BINLOG_FILE = re.compile(r"[^\n]*\.([0-9]{1,19})")
_NAME = re.compile(r"[a-z0-9_-]{1,40}")
_WHOLE_OR_NONE = (int, type(None))


class NoPositionError(ValueError):
    """The record has no position that can be ordered; the message says why, and quotes nothing but a connector's name."""


def source_position(source: Mapping[str, Any]) -> str:
    """The position that a record's `source` tells, by its connector; one that names none is PostgreSQL's.

    Raises NoPositionError for another connector, ValueError where the position is missing or is none.
    """
    connector = source.get("connector", "postgresql")
    position = _POSITIONS.get(connector) if isinstance(connector, str) else None
    if position is None:
        name = connector if isinstance(connector, str) and _NAME.fullmatch(connector) else "unknown"
        msg = f"connector {name} has an order that is not known here; {', '.join(sorted(_POSITIONS))} have one"
        raise NoPositionError(msg)
    return position(source)


def _postgresql(source: Mapping[str, Any]) -> str:
    """`sequence` is `[last commit, row]` as text; `lsn` alone only where it is missing."""
    text, lsn = source.get("sequence"), source.get("lsn")
    commit = row = None
    if text is not None:
        found = _LSNS.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            msg = "sequence is not [commit, row]"
            raise NoPositionError(msg)
        commit, row = found.groups()
    return postgresql_position(int(commit) if commit else None, int(row) if row else _whole(lsn))


def _mysql(source: Mapping[str, Any]) -> str:
    """(number of the binlog file, position, row in its event): the file's name sorts only while its number is padded."""
    file = source.get("file")
    found = _BINLOG_FILE.fullmatch(file) if isinstance(file, str) else None
    at = _whole(source.get("pos"))
    if found is None or at is None:
        msg = "no binlog file and position"
        raise NoPositionError(msg)
    return position_of(int(found[1]), at, _whole(source.get("row")) or 0)


def _whole(value: Any) -> int | None:
    if type(value) not in _WHOLE_OR_NONE:  # true and false are integers to Python, and a position to nobody
        msg = "a position is not a whole number"
        raise NoPositionError(msg)
    return value  # type: ignore[no-any-return] # looked at above


_POSITIONS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "postgresql": _postgresql,
    "mysql": _mysql,
    "mariadb": _mysql,
}

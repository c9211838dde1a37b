"""A place in a binary log as MySQL and MariaDB number it: the file's number, the position in it, the row in its event."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from transforms.positions.sequence import NoPositionError, position_of, shape, whole_number

_FILE = re.compile(r"[^\n]*\.([0-9]{1,19})")


def binlog_position(source: Mapping[str, Any], *, hint: str = "") -> str:
    """Read `file`, `pos` and `row`; a snapshot's row has the place where the changes after it begin.

    The file's name itself does not sort: its number outgrows the padding (999999, 1000000). Raises NoPositionError, which
    ends with `hint`, for a file without a number.
    """
    file = source.get("file")
    match = _FILE.fullmatch(file) if isinstance(file, str) else None
    if match is None:
        msg = f"file is {shape(file)} and not a binary log's name with its number{hint}"
        raise NoPositionError(msg)
    position = whole_number(source.get("pos"))
    if position is None:
        msg = "the place in the binary log has a file and no pos"
        raise NoPositionError(msg)
    return position_of(int(match[1]), position, whole_number(source.get("row")) or 0)

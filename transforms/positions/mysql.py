"""The position of MySQL and MariaDB: the number of the binlog file, the position in it, the row in its event."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from transforms.positions.sequence import NoPositionError, position_of, whole_number

_BINLOG_FILE = re.compile(r"[^\n]*\.([0-9]{1,19})")


def source_position(source: Mapping[str, Any]) -> str:
    """Read `file`, `pos` and `row`. The file's name itself does not sort: its number outgrows the padding."""
    file = source.get("file")
    match = _BINLOG_FILE.fullmatch(file) if isinstance(file, str) else None
    position = whole_number(source.get("pos"))
    if match is None or position is None:
        raise NoPositionError("no binlog file and position")
    return position_of(int(match[1]), position, whole_number(source.get("row")) or 0)

"""The position of SQL Server: the log sequence numbers (LSN) of the commit and of the change, and the event's number there.

Two LSNs of 80 bits and a number of 32 fill a source position exactly (`io.debezium.connector.sqlserver.Lsn`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from transforms.positions.sequence import NoPositionError, shape, whole_number

_LSN = re.compile(r"([0-9A-Fa-f]{8}):([0-9A-Fa-f]{8}):([0-9A-Fa-f]{4})")
_NO_CHANGE = "0" * 20
_EVENT_BITS = 32


def source_position(source: Mapping[str, Any]) -> str:
    """Read `commit_lsn`, `change_lsn` and `event_serial_no`.

    A snapshot's row has a commit alone, the last one it shows: it ranks below every change of that commit. An event
    without a number has 0. Raises NoPositionError for an LSN of another form and a number of more than 32 bits.
    """
    commit, change = source.get("commit_lsn"), source.get("change_lsn")
    number = whole_number(source.get("event_serial_no")) or 0
    if not 0 <= number < 1 << _EVENT_BITS:
        msg = "event_serial_no is not a number of 32 bits"
        raise NoPositionError(msg)
    digits = _NO_CHANGE if change is None else _lsn("change_lsn", change)
    return f"{_lsn('commit_lsn', commit)}{digits}{number:08x}"


def _lsn(name: str, value: Any) -> str:
    match = _LSN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        msg = f"{name} is {shape(value)} and not 8:8:4 hexadecimal digits"
        raise NoPositionError(msg)
    return "".join(match.groups()).lower()

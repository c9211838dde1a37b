"""The position of a toy database: a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transforms.positions.sequence import NoPositionError, position_of, whole_number


def source_position(source: Mapping[str, Any]) -> str:
    """Read `toy_position`."""
    position = whole_number(source.get("toy_position"))
    if position is None:
        msg = "no toy position"
        raise NoPositionError(msg)
    return position_of(position, 0, 0)

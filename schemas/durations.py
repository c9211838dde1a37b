"""Durations as a configuration writes them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)\s*")
"""`500ms`, `5s`, `1m`, `1h`, `30d`; a bare number is seconds."""
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}


def seconds(value: object) -> object:
    """Read `500ms`, `5s`, `1m`, `1h`, `30d` or a number of seconds."""
    if not isinstance(value, str):
        return value
    match = DURATION.fullmatch(value)
    if match is None:
        raise ValueError("a duration is expected here: 500ms, 5s, 1m, 1h or 30d")
    return float(match[1]) * _UNIT_SECONDS[match[2]]


Duration = Annotated[float, Field(gt=0), BeforeValidator(seconds)]
"""A positive duration, in seconds."""

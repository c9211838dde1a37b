"""The input of a tool call, which providers send as an object or as JSON in a text. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson


def input_of(written: object) -> Mapping[str, Any] | None:
    """The object that a model wrote; None where it is none."""
    if isinstance(written, str):
        try:
            written = orjson.loads(written)
        except orjson.JSONDecodeError:
            return None
    return written if isinstance(written, dict) else None

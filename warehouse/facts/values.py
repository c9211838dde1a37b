"""Values of a fact's parameters: as text that casts to their type, and in their order. Pure."""

from __future__ import annotations

import datetime as dt
import decimal
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

type ParameterType = Literal["text", "integer", "decimal", "boolean", "date", "timestamp"]

_INTEGER = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_MOST_DECIMAL = 10**28
"""Below it is what a DECIMAL(38, 10) holds, as which decimals are compared."""


def unquoted(value: object) -> str:
    """A value as text: a boolean as `true` or `false`, a text without quotation marks."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def as_text(value: object, kind: ParameterType) -> str | None:
    """A value as text that casts to its type; None without one. The Data API takes no empty text."""
    if not isinstance(value, str | int | float | decimal.Decimal):
        return None
    text = unquoted(value)
    try:
        text.encode()
        written = _WRITTEN[kind](text)
    except (ValueError, decimal.InvalidOperation):
        return None
    return written if written and "\0" not in written else None


def in_order(text: str, kind: ParameterType) -> Any:
    """A text of `as_text` as a value that compares with others of its type; a timestamp without a zone is UTC."""
    if kind == "timestamp":
        moment = dt.datetime.fromisoformat(text)
        return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment
    return _ORDERED[kind](text)


def _integer(text: str) -> str:
    return text if _INTEGER.fullmatch(text) and -(2**63) <= int(text) < 2**63 else ""


def _decimal(text: str) -> str:
    number = decimal.Decimal(text)
    return format(number, "f") if number.is_finite() and abs(number) < _MOST_DECIMAL else ""


_WRITTEN: Mapping[ParameterType, Callable[[str], str]] = {
    "text": str,
    "integer": _integer,
    "decimal": _decimal,
    "boolean": lambda text: text if text in {"true", "false"} else "",
    "date": lambda text: dt.date.fromisoformat(text).isoformat(),
    "timestamp": lambda text: dt.datetime.fromisoformat(text).isoformat(),
}
"""As the warehouse reads it: Python reads more forms of a date than Redshift does."""
_ORDERED: Mapping[ParameterType, Callable[[str], Any]] = {
    "text": str, "integer": int, "decimal": decimal.Decimal, "boolean": str, "date": dt.date.fromisoformat,
}  # fmt: skip

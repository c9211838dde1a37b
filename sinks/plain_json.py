"""JSON as every store takes it and a reader may print it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from transforms.values import exact_json

_WIDEST = 1000
"""Exponent; jsonb holds numbers as numeric, with 131,072 digits before the point. A wider number is kept as text."""
_LONGEST = 15_000
"""Characters; numeric has 16,383 digits after the point, those of the exponent among them. A longer number is kept as text."""


def plain_json(value: Any) -> str:
    """JSON without U+0000, lone surrogates or a number beyond PostgreSQL's numeric; exact otherwise."""
    return exact_json.dumps(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return exact_json.printable(value)
    if isinstance(value, Decimal) and not _is_numeric(value):
        return str(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {exact_json.printable(name): _plain(item) for name, item in value.items()}
    return value


def _is_numeric(number: Decimal) -> bool:
    return number.is_finite() and abs(number.adjusted()) <= _WIDEST and len(str(number)) <= _LONGEST

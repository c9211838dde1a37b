"""JSON as every store takes it and a reader may print it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from transforms import exact_json

_WIDEST_EXPONENT = 1000
"""jsonb holds numbers as numeric (131,072 digits before the point); a wider one is kept as text."""


def plain_json(value: Any) -> str:
    """JSON without U+0000, lone surrogates or a number beyond PostgreSQL's numeric; exact otherwise."""
    return exact_json.dumps(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return exact_json.printable(value)
    if isinstance(value, Decimal) and (not value.is_finite() or abs(value.adjusted()) > _WIDEST_EXPONENT):
        return str(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {exact_json.printable(name): _plain(item) for name, item in value.items()}
    return value

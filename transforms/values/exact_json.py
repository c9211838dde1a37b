"""JSON that keeps numbers exact: integers of any length, decimals with their trailing zeros, 1e400."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import cache
from typing import Any

import orjson
import simplejson

_DECODER = json.JSONDecoder(parse_float=Decimal)
_WIDEST = 1000
"""Exponent; jsonb holds numbers as numeric, with 131,072 digits before the point. A wider number is kept as text."""
_LONGEST = 15_000
"""Characters; numeric has 16,383 digits after the point, those of the exponent among them. A longer number is kept as text."""


def loads(text: bytes | str) -> Any:
    """Parse JSON with numbers as int or Decimal; raises ValueError on anything that is not one JSON value.

    A number whose exponent no Decimal holds (19 digits) stays text; an integer of more digits than Python reads is a Decimal.
    """
    document = text.decode("utf-8") if isinstance(text, bytes) else text
    try:
        return _DECODER.decode(document)
    except json.JSONDecodeError:
        raise
    except (ArithmeticError, ValueError):
        return _WIDE_DECODER.decode(document)


def _decimal_or_text(text: str) -> Decimal | str:
    try:
        return Decimal(text)
    except ArithmeticError:
        return text


def _int_or_decimal(text: str) -> int | Decimal:
    return int(text) if len(text) <= _INTEGER_DIGITS else Decimal(text)


_INTEGER_DIGITS = 4300
"""Python's own limit (`sys.int_info`): reading longer ones takes the square of their length."""
_WIDE_DECODER = json.JSONDecoder(parse_float=_decimal_or_text, parse_int=_int_or_decimal)


def dumps(value: Any, *, sort_keys: bool = False, ascii_only: bool = True) -> str:
    """Render a value that `loads` gave, compact and by default in ASCII only, so that any store and collation takes it.

    A number with a fraction comes back with the digits it came with; a lone surrogate stays an escape.
    """
    if not sort_keys and (text := _quickly(value)) is not None and (text.isascii() or not ascii_only):
        return text
    return _encoder(sort_keys, ascii_only).encode(value)


def _quickly(value: Any) -> str | None:
    """By orjson, in a fifth of the time; None for what it does not render, or not as simplejson does."""
    try:
        text = orjson.dumps(value, default=_decimal, option=_AS_THEY_ARE).decode()
    except TypeError:  # wide integers, lone surrogates, deep nesting
        return None
    return None if "\x7f" in text else text


def _decimal(value: Any) -> orjson.Fragment:
    if isinstance(value, Decimal):
        return orjson.Fragment(str(value))
    raise TypeError


_AS_THEY_ARE = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


@cache
def _encoder(sort_keys: bool, ascii_only: bool) -> simplejson.JSONEncoder:  # noqa: FBT001 - of a cache
    """One for all texts: making an encoder takes longer than a short text."""
    return simplejson.JSONEncoder(use_decimal=True, separators=(",", ":"), ensure_ascii=ascii_only, sort_keys=sort_keys)


def printable(text: str) -> str:
    """Replace what no UTF-8 store takes (lone surrogates, U+0000) by U+FFFD."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").replace("\0", "\ufffd")


def storable(value: Any) -> str:
    """JSON that every store takes: no U+0000, lone surrogate or number beyond PostgreSQL's numeric; exact otherwise."""
    return dumps(_storable(value))


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Decimal) and not _is_numeric(value):
        return str(value)
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {printable(name): _storable(item) for name, item in value.items()}
    return value


def _is_numeric(number: Decimal) -> bool:
    return number.is_finite() and abs(number.adjusted()) <= _WIDEST and len(str(number)) <= _LONGEST

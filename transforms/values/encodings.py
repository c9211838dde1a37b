"""Encoded values made canonical, one function an encoding.

Encodings are Debezium's and Kafka Connect's (connector documentation, "Data type mappings") and AWS DMS's. Dates and times
are in `transforms.values.times`. A value that does not have the encoding's JSON type stays as it is.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from typing import Any

from transforms.values.times import OutOfRangeError

type Convert = Callable[[Any], Any]

_SPECIAL = {
    "NAN": "NaN", "NaN": "NaN", "POSITIVE_INFINITY": "Infinity", "Infinity": "Infinity", "+Infinity": "Infinity",
    "NEGATIVE_INFINITY": "-Infinity", "-Infinity": "-Infinity",
}  # fmt: skip
_WIDEST_INTEGER = 40
"""Digits; integers of more are no integer column's."""
_DECIMAL_BYTES = 61_440
"""Of an unscaled number with the 131,072 digits before and 16,383 after the point that PostgreSQL's numeric has at most."""
_BITS_AT_ONCE = 4096
ROUNDED = "came in scientific notation without all of its digits"
_EXACT = Context(prec=MAX_PREC, Emin=MIN_EMIN, Emax=MAX_EMAX)


def number(value: Any) -> Any:
    """Make a number exact: text such as `1.10` becomes a Decimal, NaN and infinities keep one spelling."""
    if not isinstance(value, str):
        return value
    special = _SPECIAL.get(value)
    if special:
        return special
    try:
        return Decimal(value)
    except ArithmeticError:
        return value


def integer(value: Any) -> Any:
    """Read an integer that some sources send as text or in scientific notation (DMS, more than 16 digits).

    Raises OutOfRangeError where the notation left digits out.
    """
    if isinstance(value, str) and len(value) < _WIDEST_INTEGER and _DIGITS.fullmatch(value):
        return int(value)
    exact = number(value)
    if not isinstance(exact, Decimal) or exact.adjusted() >= _WIDEST_INTEGER:
        return exact
    if lost_digits(exact):
        raise OutOfRangeError(ROUNDED)
    return int(exact) if exact == exact.to_integral_value() else exact


def lost_digits(value: Any) -> bool:
    """Whether a number was written with fewer digits than stand before its point (`1.2E+18`): it may have been rounded."""
    return isinstance(value, Decimal) and value.is_finite() and value.adjusted() >= len(value.as_tuple().digits)


def unsigned(value: Any) -> Any:
    """MySQL's BIGINT UNSIGNED where the connector sends it in 64 signed bits (`bigint.unsigned.handling.mode=long`)."""
    return value + 2**64 if type(value) is int and value < 0 else value


def boolean(value: Any) -> Any:
    """Read DMS's booleans as text (PostgreSQL's are a varchar(5) unless MapBooleanAsBoolean is set) or as 0 and 1 (bits)."""
    if isinstance(value, str):
        return _BOOLEANS.get(value.lower(), value)
    return bool(value) if type(value) is int and value in {0, 1} else value


_BOOLEANS = {"true": True, "false": False, "t": True, "f": False, "1": True, "0": False}


def binary(value: Any) -> Any:
    """Bytes as base64; DMS writes them as hexadecimal after `0x`."""
    if isinstance(value, str) and value.startswith("0x"):
        try:
            return base64.b64encode(bytes.fromhex(value[2:])).decode()
        except ValueError:
            return value
    return value


def hexadecimal(value: Any) -> Any:
    """Bytes that DMS wrote in hexadecimal, with its `0x` or without (NoHexPrefix), as base64; raises ValueError for others."""
    return base64.b64encode(bytes.fromhex(value.removeprefix("0x"))).decode() if isinstance(value, str) else value


def decimal_from_bytes(scale: int) -> Convert:
    """Base64 of a big-endian two's-complement unscaled value to a Decimal of that scale.

    Raises OutOfRangeError for more digits than PostgreSQL's numeric has, ValueError for what is no base64 of a number.
    """

    def convert(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        raw = base64.b64decode(value, validate=True)
        if not raw or len(raw) > _DECIMAL_BYTES:
            msg = "has more digits than a numeric, or none"
            raise OutOfRangeError(msg)
        return _decimal(int.from_bytes(raw, "big", signed=True)).scaleb(-scale, _EXACT)

    return convert


def _decimal(unscaled: int) -> Decimal:
    """An integer in decimal digits; by halves, since the time of one conversion grows with the square of its length."""
    half = unscaled.bit_length() // 2
    if half < _BITS_AT_ONCE:
        return Decimal(unscaled)
    return _EXACT.fma(_decimal(unscaled >> half), _EXACT.power(2, half), _decimal(unscaled & ((1 << half) - 1)))


def variable_decimal(value: Any) -> Any:
    """Debezium's {scale, value} of a numeric without a fixed scale."""
    return decimal_from_bytes(value["scale"])(value["value"]) if isinstance(value, dict) else value


def bits(length: int, *, varying: bool = False) -> Convert:
    """Little-endian bytes to the bit string the database shows; without leading zeros where the length varies.

    The announced length pads no further than the bytes that came: of `bit varying` without a length it is 2**31 - 1.
    """

    def convert(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        raw = base64.b64decode(value, validate=True)
        digits = format(int.from_bytes(raw, "little"), "b") if raw else ""
        return digits if varying else digits.zfill(min(length, 8 * len(raw)))

    return convert


def list_of(convert: Convert) -> Convert:
    """Lists, as the JSON converter writes arrays; anything else stays as it is."""

    def convert_list(values: Any) -> Any:
        return [None if item is None else convert(item) for item in values] if isinstance(values, list) else values

    return convert_list


def in_utc(value: Any) -> Any:
    """Time stamps with a zone: DMS writes them in UTC and leaves the zone out."""
    return f"{value}Z" if isinstance(value, str) and _NAIVE.fullmatch(value) else value


def array_of(convert: Convert | None) -> Convert:
    """Arrays of values that a converter takes: DMS writes PostgreSQL's own text of them (its documentation, 8.15.6).

    Text that is no such array stays as it is.
    """

    def item(value: Any) -> Any:
        if isinstance(value, list):
            return [item(part) for part in value]
        return value if value is None or convert is None else convert(value)

    def convert_array(value: Any) -> Any:
        parsed = _parsed_array(value) if isinstance(value, str) else value
        return item(parsed) if isinstance(parsed, list) else value

    return convert_array


_DIGITS = re.compile(r"-?[0-9]+")
_NAIVE = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?")
_ARRAY_TOKEN = re.compile(r'[{},]|"((?:[^"\\]++|\\.)*+)"|((?:[^{},"\\]++|\\.)++)', re.DOTALL)
_DIMENSIONS = 6
"""PostgreSQL's most (`MAXDIM`)."""
_BOUNDS = re.compile(r"(\[[-+\d:]+\])+=")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def _parsed_array(text: str) -> Any:
    """A list, nested for more than one dimension; the text itself when it is no array."""
    open_lists: list[list[Any]] = [[]]
    at = bounds.end() if (bounds := _BOUNDS.match(text)) else 0
    while at < len(text):
        token = _ARRAY_TOKEN.match(text, at)
        if token is None or (token[0] == "}" and len(open_lists) == 1):
            return text
        at = token.end()
        if token[0] == "{":
            if len(open_lists) > _DIMENSIONS:
                return text
            open_lists.append([])
        elif token[0] == "}":
            done = open_lists.pop()
            open_lists[-1].append(done)
        elif token[1] is not None:
            open_lists[-1].append(_ESCAPED.sub(r"\1", token[1]))
        elif token[2] is not None:
            bare = _ESCAPED.sub(r"\1", token[2])
            open_lists[-1].append(None if bare.upper() == "NULL" else bare)
    is_array = len(open_lists) == 1 and len(open_lists[0]) == 1 and isinstance(open_lists[0][0], list)
    return open_lists[0][0] if is_array else text

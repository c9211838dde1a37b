"""Canonical values as a Delta column holds them, and back.

A value that does not fit its column raises; nothing is rounded, cut or guessed. What a column cannot give back exactly
as it came is known by comparing (`same`), so that the state of a row can keep it beside the column.
"""

from __future__ import annotations

import base64
import datetime as dt
import math
import re
from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from lake.tables.kinds import decimal_digits
from transforms.values import exact_json
from transforms.values.encodings import lost_digits

_SCALARS: dict[str, pa.DataType] = {
    "smallint": pa.int16(), "int": pa.int32(), "bigint": pa.int64(), "float": pa.float32(), "double": pa.float64(),
    "boolean": pa.bool_(), "binary": pa.binary(), "date": pa.date32(), "timestamp_ntz": pa.timestamp("us"),
    "timestamp": pa.timestamp("us", tz="UTC"), "string": pa.string(),
}  # fmt: skip
_ARRAY = re.compile(r"array<(.+)>")
_NANOS = re.compile(r"\.\d{6}\d*[1-9]")
"""Digits below a microsecond, which no column type has (SQL Server's datetime2(7), Oracle's TIMESTAMP(9))."""
_WIDE = Context(prec=80)
"""More digits than any column has: rescaling a number that fits never rounds."""
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class UnfitError(ValueError):
    """The value does not fit the column's type. The message holds no value."""


def arrow_type(kind: str) -> pa.DataType:
    """The Arrow type of a Spark type as `transforms.values.types.spark_type` names it."""
    if kind in _SCALARS:
        return _SCALARS[kind]
    digits, array = decimal_digits(kind), _ARRAY.fullmatch(kind)
    if digits:
        return pa.decimal128(*digits)
    if array:
        return pa.list_(arrow_type(array[1]))
    raise ValueError(f"no column type {kind}")


def into(value: Any, kind: str) -> Any:
    """A canonical value as a column of a Spark type takes it; raises UnfitError."""
    if value is None:
        return None
    try:
        fitted = _into(value, kind)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise UnfitError(kind) from error
    return fitted


def _into(value: Any, kind: str) -> Any:
    simple = _INTO.get(kind)
    if simple:
        return simple(value)
    array = _ARRAY.fullmatch(kind)
    if array:
        return [None if item is None else _into(item, array[1]) for item in _required(value, list)]
    return _decimal(value, kind)


def back(value: Any, kind: str) -> Any:
    """What a column gives back, in canonical form; `into` inverted, as far as the type allows."""
    if value is None:
        return None
    if kind in {"float", "double"}:
        return _canonical_float(value, kind)
    if kind == "binary":
        return base64.b64encode(value).decode()
    if kind in {"date", "timestamp_ntz"}:
        return value.isoformat()
    if kind == "timestamp":
        return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
    array = _ARRAY.fullmatch(kind)
    return [back(item, array[1]) for item in value] if array else value


def same(one: Any, other: Any) -> bool:
    """Whether two canonical values are written alike, digit for digit."""
    if type(one) is not type(other):
        return False
    return bool(one == other) if isinstance(one, (str, int)) else exact_json.dumps(one) == exact_json.dumps(other)


def text_of(value: Any) -> str:
    """A value in a text column: text as it is, structures as JSON, numbers digit for digit."""
    if isinstance(value, str):
        return value
    return exact_json.dumps(value) if isinstance(value, (bool, list, dict)) else str(value)


def _required[T](value: Any, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError
    return value


def _integer(value: Any, bits: int) -> int:
    if (
        isinstance(value, Decimal)
        and value.adjusted() <= 19
        and not lost_digits(value)
        and value == value.to_integral_value()
    ):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**bits) <= value < 2**bits:
        raise ValueError
    return value


def _floating(value: Any, kind: str) -> float:
    if isinstance(value, str):
        return _NOT_FINITE[value] if value in _NOT_FINITE else _required(None, float)
    if isinstance(value, bool) or not isinstance(value, (int, Decimal, float)):
        raise TypeError
    with np.errstate(over="ignore"):
        number = float(np.float32(float(value))) if kind == "float" else float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _canonical_float(value: float, kind: str) -> Any:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return Decimal(str(np.float32(value)) if kind == "float" else repr(value))


def _moment(text: str, *, zoned: bool) -> dt.datetime:
    if _NANOS.search(text):  # a parser cuts them off
        raise ValueError
    moment = dt.datetime.fromisoformat(text)
    if (moment.tzinfo is not None) != zoned or "T" not in text:
        raise ValueError
    return moment.astimezone(dt.UTC) if zoned else moment


def _decimal(value: Any, kind: str) -> Decimal:
    digits = decimal_digits(kind)
    if not digits or isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise TypeError
    precision, scale = digits
    number = Decimal(value)
    if not number.is_finite() or (number != 0 and number.adjusted() >= precision - scale):
        raise ValueError
    scaled = number.quantize(Decimal(1).scaleb(-scale), context=_WIDE)
    if scaled != number:
        raise ValueError
    return scaled


_INTO: dict[str, Callable[[Any], Any]] = {
    "string": lambda value: exact_json.printable(text_of(value)),
    "smallint": lambda value: _integer(value, 15),
    "int": lambda value: _integer(value, 31),
    "bigint": lambda value: _integer(value, 63),
    "float": lambda value: _floating(value, "float"),
    "double": lambda value: _floating(value, "double"),
    "boolean": lambda value: _required(value, bool),
    "binary": lambda value: base64.b64decode(_required(value, str), validate=True),
    "date": lambda value: dt.date.fromisoformat(_required(value, str)),
    "timestamp_ntz": lambda value: _moment(_required(value, str), zoned=False),
    "timestamp": lambda value: _moment(_required(value, str), zoned=True),
}

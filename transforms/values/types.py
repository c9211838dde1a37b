"""Column types as sources announce them, and values made canonical by them.

Canonical type names: smallint int bigint decimal(p,s) numeric real double boolean text bytes date timestamp
timestamptz time timetz interval uuid json bits array<T> and `any` (no evidence). Canonical values: numbers are int or Decimal
(`"NaN"`, `"Infinity"`, `"-Infinity"` are text), dates and times ISO 8601 text, bytes base64 text.
Encodings are Debezium's and Kafka Connect's (connector documentation, "Data type mappings").
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from functools import cache
from typing import Any

from transforms.values.times import (
    MICROS,
    MILLIS,
    NANOS,
    OutOfRangeError,
    date_from_days,
    iso,
    time_from,
    timestamp_from,
)

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
_EXACT = Context(prec=MAX_PREC, Emin=MIN_EMIN, Emax=MAX_EMAX)

_POSTGRESQL = {
    "INT2": "smallint", "INT4": "int", "INT8": "bigint", "SERIAL": "int", "BIGSERIAL": "bigint", "OID": "bigint",
    "FLOAT4": "real", "FLOAT8": "double", "BOOL": "boolean", "TEXT": "text", "VARCHAR": "text", "BPCHAR": "text",
    "CITEXT": "text", "NAME": "text", "BYTEA": "bytes", "DATE": "date", "TIMESTAMP": "timestamp",
    "TIMESTAMPTZ": "timestamptz", "TIME": "time", "TIMETZ": "timetz", "INTERVAL": "interval", "UUID": "uuid",
    "JSON": "json", "JSONB": "json", "HSTORE": "json", "MONEY": "numeric",
}  # fmt: skip
_UNSIGNED = "BIGINT UNSIGNED"
_CONNECT = {
    "int8": "smallint", "int16": "smallint", "int32": "int", "int64": "bigint", "float": "real", "float32": "real",
    "float64": "double", "double": "double", "boolean": "boolean", "string": "text", "bytes": "bytes",
}  # fmt: skip
_DMS = {
    "INT1": "smallint", "INT2": "smallint", "INT4": "int", "INT8": "bigint", "INT16": "smallint", "INT32": "int",
    "INT64": "bigint", "UINT1": "smallint", "UINT2": "int", "UINT4": "bigint", "UINT8": "decimal(20,0)",
    "REAL4": "real", "REAL8": "double", "FLOAT": "real", "DOUBLE": "double", "BOOLEAN": "boolean", "BOOL": "boolean",
    "DATE": "date", "TIME": "time", "DATETIME": "timestamp", "TIMESTAMP": "timestamp", "BYTES": "bytes",
    "BLOB": "bytes", "STRING": "text", "WSTRING": "text", "CLOB": "text", "NCLOB": "text",
}  # fmt: skip


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
    """Read an integer that some sources send as text or in scientific notation (DMS, more than 16 digits)."""
    if isinstance(value, str) and len(value) < _WIDEST_INTEGER and _DIGITS.fullmatch(value):
        return int(value)
    exact = number(value)
    if isinstance(exact, Decimal) and exact.adjusted() < _WIDEST_INTEGER and exact == exact.to_integral_value():
        return int(exact)
    return exact


def unsigned(value: Any) -> Any:
    """MySQL's BIGINT UNSIGNED where the connector sends it in 64 signed bits (`bigint.unsigned.handling.mode=long`)."""
    return value + 2**64 if type(value) is int and value < 0 else value


def boolean(value: Any) -> Any:
    """Read DMS's textual booleans (varchar(5) unless MapBooleanAsBoolean)."""
    return {"true": True, "false": False, "t": True, "f": False}.get(value, value) if isinstance(value, str) else value


def binary(value: Any) -> Any:
    """Bytes as base64; DMS writes them as hexadecimal after `0x`."""
    if isinstance(value, str) and value.startswith("0x"):
        try:
            return base64.b64encode(bytes.fromhex(value[2:])).decode()
        except ValueError:
            return value
    return value


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


def _decimal(whole: int) -> Decimal:
    """An integer in decimal digits; by halves, since the time of one conversion grows with the square of its length."""
    half = whole.bit_length() // 2
    if half < _BITS_AT_ONCE:
        return Decimal(whole)
    return _EXACT.fma(_decimal(whole >> half), _EXACT.power(2, half), _decimal(whole & ((1 << half) - 1)))


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


_LOGICAL: dict[str, tuple[str, Convert | None]] = {
    "io.debezium.time.Date": ("date", date_from_days),
    "org.apache.kafka.connect.data.Date": ("date", date_from_days),
    "io.debezium.time.IsoDate": ("date", iso),
    "io.debezium.time.Timestamp": ("timestamp", timestamp_from(MILLIS)),
    "org.apache.kafka.connect.data.Timestamp": ("timestamp", timestamp_from(MILLIS)),
    "io.debezium.time.MicroTimestamp": ("timestamp", timestamp_from(MICROS)),
    "io.debezium.time.NanoTimestamp": ("timestamp", timestamp_from(NANOS)),
    "io.debezium.time.IsoTimestamp": ("timestamp", iso),
    "io.debezium.time.ZonedTimestamp": ("timestamptz", None),
    "io.debezium.time.Time": ("time", time_from(MILLIS)),
    "org.apache.kafka.connect.data.Time": ("time", time_from(MILLIS)),
    "io.debezium.time.MicroTime": ("time", time_from(MICROS)),
    "io.debezium.time.NanoTime": ("time", time_from(NANOS)),
    "io.debezium.time.IsoTime": ("time", iso),
    "io.debezium.time.ZonedTime": ("timetz", None),
    "io.debezium.time.MicroDuration": ("interval", None),
    "io.debezium.time.Interval": ("interval", None),
    "io.debezium.data.VariableScaleDecimal": ("numeric", variable_decimal),
    "io.debezium.data.Uuid": ("uuid", None),
    "io.debezium.data.Json": ("json", None),
}


def connect_type(field: Mapping[str, Any]) -> tuple[str, Convert | None]:
    """Canonical type and converter of one field of a Kafka Connect schema (None: the value is canonical already)."""
    name, kind, parameters = field.get("name"), field.get("type"), field.get("parameters") or {}
    source = parameters.get("__debezium.source.column.type", "").upper()
    if name == "org.apache.kafka.connect.data.Decimal":
        digits = 20 if source.startswith(_UNSIGNED) else 0
        scale, precision = int(parameters.get("scale", 0)), int(parameters.get("connect.decimal.precision", digits))
        return decimal_type(precision, scale), decimal_from_bytes(scale)
    if name == "io.debezium.data.Bits":
        return "bits", bits(int(parameters.get("length", 1)), varying=source == "VARBIT")
    if name in _LOGICAL:
        return _LOGICAL[name]
    if kind == "array":
        element, convert = connect_type(field.get("items") or {})
        return f"array<{element}>", _each(convert) if convert else None
    if kind == "string" and source in {"NUMERIC", "DECIMAL", "MONEY"}:
        precision = int(parameters.get("__debezium.source.column.length", 0))
        return decimal_type(precision, int(parameters.get("__debezium.source.column.scale", -1))), number
    if kind in {"float", "float32", "float64", "double"}:
        return _CONNECT[kind], number
    if kind == "int64" and source.startswith(_UNSIGNED):
        return "decimal(20,0)", unsigned
    plain = (_POSTGRESQL.get(source) or _CONNECT.get(kind)) if kind not in {"struct", None} else None
    return plain or "any", None


def _each(convert: Convert) -> Convert:
    return lambda values: [None if v is None else convert(v) for v in values] if isinstance(values, list) else values


def decimal_type(precision: int, scale: int) -> str:
    """`decimal(p,s)` where Delta can hold it, else `numeric` (kept as exact text)."""
    return f"decimal({precision},{scale})" if 0 < precision <= 38 and 0 <= scale <= precision else "numeric"


def dms_type(column: Mapping[str, Any]) -> str:
    """Canonical type of a column in a DMS control record; names the page does not list are `any`."""
    kind = str(column.get("type", "")).upper()
    if kind == "NUMERIC":
        return decimal_type(int(column.get("precision", 0)), int(column.get("scale", -1)))
    return _DMS.get(kind, "any")


def in_utc(value: Any) -> Any:
    """Time stamps with a zone: DMS writes them in UTC and leaves the zone out."""
    return f"{value}Z" if isinstance(value, str) and _NAIVE.fullmatch(value) else value


def array(element: str) -> Convert:
    """Arrays: DMS writes PostgreSQL's own text of them (PostgreSQL documentation, 8.15.6).

    Text that is no such array stays as it is.
    """
    convert = converter(element) or (lambda value: value)

    def item(value: Any) -> Any:
        if isinstance(value, list):
            return [item(each) for each in value]
        return None if value is None else convert(value)

    def whole(value: Any) -> Any:
        parsed = _parsed_array(value) if isinstance(value, str) else value
        return item(parsed) if isinstance(parsed, list) else value

    return whole


_DIGITS = re.compile(r"-?[0-9]+")
_ARRAY = re.compile(r"array<(.+)>")
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
    whole = len(open_lists) == 1 and len(open_lists[0]) == 1 and isinstance(open_lists[0][0], list)
    return open_lists[0][0] if whole else text


_CONVERT_BY_TYPE: dict[str, Convert] = {
    "smallint": integer, "int": integer, "bigint": integer, "numeric": number, "real": number, "double": number,
    "boolean": boolean, "bytes": binary, "date": date_from_days, "timestamp": timestamp_from(MICROS),
    "timestamptz": in_utc,
}  # fmt: skip


@cache
def converter(canonical: str) -> Convert | None:
    """The converter for a declared or announced type, for values that came without their schema."""
    if canonical.startswith("decimal("):
        return number
    elements = _ARRAY.fullmatch(canonical)
    return array(elements[1]) if elements else _CONVERT_BY_TYPE.get(canonical)


_SPARK = {
    "smallint": "smallint", "int": "int", "bigint": "bigint", "real": "float", "double": "double",
    "boolean": "boolean", "bytes": "binary", "date": "date", "timestamp": "timestamp_ntz", "timestamptz": "timestamp",
}  # fmt: skip


def spark_type(canonical: str) -> str:
    """The Delta column type that holds a canonical type without loss; text where Spark has none."""
    if canonical.startswith("decimal("):
        return canonical
    array = _ARRAY.fullmatch(canonical)
    return f"array<{spark_type(array[1])}>" if array else _SPARK.get(canonical, "string")

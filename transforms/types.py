"""Column types as sources announce them, and values made canonical by them.

Canonical type names: smallint int bigint decimal(p,s) numeric real double boolean text bytes date timestamp
timestamptz time timetz interval uuid json bits array<T> and `any` (no evidence). Canonical values: numbers are int or Decimal
(`"NaN"`, `"Infinity"`, `"-Infinity"` are text), dates and times ISO 8601 text, bytes base64 text.
Encodings are Debezium's and Kafka Connect's (connector documentation, "Data type mappings").
"""

from __future__ import annotations

import base64
import datetime as dt
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np

type Convert = Callable[[Any], Any]

_SPECIAL = {
    "NAN": "NaN", "NaN": "NaN", "POSITIVE_INFINITY": "Infinity", "Infinity": "Infinity", "+Infinity": "Infinity",
    "NEGATIVE_INFINITY": "-Infinity", "-Infinity": "-Infinity",
}  # fmt: skip
_EPOCH_DAY = dt.date(1970, 1, 1).toordinal()
_INFINITE_US = {9223372036825200000: "infinity", -9223372036832400000: "-infinity", 2**63 - 1: "infinity"}
_INFINITE_DAYS = {-2147472692: "infinity", -2147472691: "-infinity"}
"""What Debezium 3.5 sends for PostgreSQL's infinite timestamps and dates, as recorded."""

_POSTGRESQL = {
    "INT2": "smallint", "INT4": "int", "INT8": "bigint", "SERIAL": "int", "BIGSERIAL": "bigint", "OID": "bigint",
    "FLOAT4": "real", "FLOAT8": "double", "BOOL": "boolean", "TEXT": "text", "VARCHAR": "text", "BPCHAR": "text",
    "CITEXT": "text", "NAME": "text", "BYTEA": "bytes", "DATE": "date", "TIMESTAMP": "timestamp",
    "TIMESTAMPTZ": "timestamptz", "TIME": "time", "TIMETZ": "timetz", "INTERVAL": "interval", "UUID": "uuid",
    "JSON": "json", "JSONB": "json", "HSTORE": "json", "MONEY": "numeric",
}  # fmt: skip
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
    exact = number(value)
    return int(exact) if isinstance(exact, Decimal) and exact == exact.to_integral_value() else exact


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


def date_from_days(value: Any) -> Any:
    """Days since the epoch to ISO text; years outside 1 to 9999 keep their astronomical number."""
    if not isinstance(value, int):
        return value.removesuffix("Z") if isinstance(value, str) else value
    if value in _INFINITE_DAYS:
        return _INFINITE_DAYS[value]
    ordinal = value + _EPOCH_DAY
    if 1 <= ordinal <= dt.date.max.toordinal():
        return dt.date.fromordinal(ordinal).isoformat()
    return _four_digit_year(str(np.datetime64(value, "D")))


def timestamp_from(unit_us: int, divisor: int = 1) -> Convert:
    """Integer timestamps of a unit (in microseconds, or a divisor of them) to ISO text without a zone."""

    def convert(value: Any) -> Any:
        if not isinstance(value, int):
            return value.removesuffix("Z") if isinstance(value, str) else value
        if value in _INFINITE_US:
            return _INFINITE_US[value]
        micros = value * unit_us // divisor
        text = _four_digit_year(str(np.datetime64(micros, "us")))
        return text if micros % 1_000_000 else text[:-7]

    return convert


def _four_digit_year(text: str) -> str:
    """ISO 8601 wants four digits of a year; numpy counts the minus among them."""
    return f"-{text[1:].zfill(len(text))}" if text.startswith("-") and text[4] == "-" else text


def time_from(unit_us: int, divisor: int = 1) -> Convert:
    """Integer times of day to ISO text."""

    def convert(value: Any) -> Any:
        if not isinstance(value, int):
            return value
        micros = value * unit_us // divisor
        seconds, fraction = divmod(micros, 1_000_000)
        clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        return f"{clock}.{fraction:06d}" if fraction else clock

    return convert


def decimal_from_bytes(scale: int) -> Convert:
    """Base64 of a big-endian two's-complement unscaled value to a Decimal of that scale."""

    def convert(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        unscaled = int.from_bytes(base64.b64decode(value), "big", signed=True)
        digits = tuple(map(int, str(abs(unscaled))))
        return Decimal((int(unscaled < 0), digits, -scale))

    return convert


def variable_decimal(value: Any) -> Any:
    """Debezium's {scale, value} of a numeric without a fixed scale."""
    return decimal_from_bytes(value["scale"])(value["value"]) if isinstance(value, dict) else value


def bits(length: int) -> Convert:
    """Little-endian bytes to the bit string the database shows."""

    def convert(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return format(int.from_bytes(base64.b64decode(value), "little"), f"0{length}b")

    return convert


_LOGICAL: dict[str, tuple[str, Convert | None]] = {
    "io.debezium.time.Date": ("date", date_from_days),
    "org.apache.kafka.connect.data.Date": ("date", date_from_days),
    "io.debezium.time.IsoDate": ("date", date_from_days),
    "io.debezium.time.Timestamp": ("timestamp", timestamp_from(1000)),
    "org.apache.kafka.connect.data.Timestamp": ("timestamp", timestamp_from(1000)),
    "io.debezium.time.MicroTimestamp": ("timestamp", timestamp_from(1)),
    "io.debezium.time.NanoTimestamp": ("timestamp", timestamp_from(1, 1000)),
    "io.debezium.time.IsoTimestamp": ("timestamp", timestamp_from(1)),
    "io.debezium.time.ZonedTimestamp": ("timestamptz", None),
    "io.debezium.time.Time": ("time", time_from(1000)),
    "org.apache.kafka.connect.data.Time": ("time", time_from(1000)),
    "io.debezium.time.MicroTime": ("time", time_from(1)),
    "io.debezium.time.NanoTime": ("time", time_from(1, 1000)),
    "io.debezium.time.IsoTime": ("time", date_from_days),
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
        scale, precision = int(parameters.get("scale", 0)), int(parameters.get("connect.decimal.precision", 0))
        return decimal_type(precision, scale), decimal_from_bytes(scale)
    if name == "io.debezium.data.Bits":
        return "bits", bits(int(parameters.get("length", 1)))
    if name in _LOGICAL:
        return _LOGICAL[name]
    if kind == "array":
        element, convert = connect_type(field.get("items") or {})
        return f"array<{element}>", _each(convert) if convert else None
    if kind == "string" and source in {"NUMERIC", "DECIMAL", "MONEY"}:
        precision = int(parameters.get("__debezium.source.column.length", 0))
        return decimal_type(precision, int(parameters.get("__debezium.source.column.scale", -1))), number
    if kind == "struct" or kind is None:
        return "any", None
    if kind in {"float", "float32", "float64", "double"}:
        return _CONNECT[kind], number
    return _POSTGRESQL.get(source) or _CONNECT.get(kind, "any"), None


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


_ARRAY = re.compile(r"array<(.+)>")
_NAIVE = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?")
_ARRAY_TOKEN = re.compile(r'[{},]|"((?:[^"\\]|\\.)*)"|((?:[^{},"\\]|\\.)+)', re.DOTALL)
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
    "boolean": boolean, "bytes": binary, "date": date_from_days, "timestamp": timestamp_from(1),
    "timestamptz": in_utc,
}  # fmt: skip


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

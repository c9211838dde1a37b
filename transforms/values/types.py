"""Column types as sources announce them, and the converter that each type's values need.

Canonical type names: smallint int bigint decimal(p,s) numeric real double boolean text bytes date timestamp
timestamptz time timetz interval uuid json bits array<T>, `hex` (bytes as DMS writes them) and `any` (type not known).
Canonical values: numbers are int or Decimal (`"NaN"`, `"Infinity"`, `"-Infinity"` are text), dates and times ISO 8601 text,
bytes base64 text.

A record with its schema has types by `connect_type`: the semantic type of Debezium or Kafka Connect, else the kind of JSON value.
A record without one has the type that was declared, or announced by DMS, and its converter by `converter`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from transforms.values.encodings import (
    Convert,
    array_of,
    binary,
    bits,
    boolean,
    decimal_from_bytes,
    hexadecimal,
    in_utc,
    integer,
    list_of,
    number,
    unsigned,
    variable_decimal,
)
from transforms.values.times import MICROS, MILLIS, NANOS, date_from_days, iso, time_from, timestamp_from, year

type Field = Mapping[str, Any]
"""A field of a Kafka Connect schema, as the JSON converter writes it."""
type Typed = tuple[str, Convert | None]
"""A canonical type, and the converter of its values (None: they are canonical already)."""

_POSTGRESQL = {
    "INT2": "smallint", "INT4": "int", "INT8": "bigint", "SERIAL": "int", "BIGSERIAL": "bigint", "OID": "bigint",
    "FLOAT4": "real", "FLOAT8": "double", "BOOL": "boolean", "TEXT": "text", "VARCHAR": "text", "BPCHAR": "text",
    "CITEXT": "text", "NAME": "text", "BYTEA": "bytes", "DATE": "date", "TIMESTAMP": "timestamp",
    "TIMESTAMPTZ": "timestamptz", "TIME": "time", "TIMETZ": "timetz", "INTERVAL": "interval", "UUID": "uuid",
    "JSON": "json", "JSONB": "json", "HSTORE": "json", "MONEY": "numeric",
}  # fmt: skip
_UNSIGNED = "BIGINT UNSIGNED"
_NUMBERS = frozenset({"NUMERIC", "DECIMAL", "DEC", "FIXED", "NUMBER", "FLOAT", "MONEY", "SMALLMONEY"})
"""Types of all engines that come as text where `decimal.handling.mode` is `string`; MySQL adds `UNSIGNED` to a name."""
_CONNECT = {
    "int8": "smallint", "int16": "smallint", "int32": "int", "int64": "bigint", "float": "real", "float32": "real",
    "float64": "double", "double": "double", "boolean": "boolean", "string": "text", "bytes": "bytes",
}  # fmt: skip
_DMS = {
    "INT1": "smallint", "INT2": "smallint", "INT4": "int", "INT8": "bigint", "INT16": "smallint", "INT32": "int",
    "INT64": "bigint", "UINT1": "smallint", "UINT2": "int", "UINT4": "bigint", "UINT8": "decimal(20,0)",
    "REAL4": "real", "REAL8": "double", "FLOAT": "real", "DOUBLE": "double", "BOOLEAN": "boolean", "BOOL": "boolean",
    "DATE": "date", "TIME": "time", "DATETIME": "timestamp", "TIMESTAMP": "timestamp", "BYTES": "hex",
    "BLOB": "hex", "STRING": "text", "WSTRING": "text", "CLOB": "text", "NCLOB": "text",
}  # fmt: skip


def connect_type(field: Field) -> Typed:
    """Canonical type and converter of one field."""
    typed = _BY_NAME.get(field.get("name")) or _BY_KIND.get(field.get("type"), _plain)
    return typed(field)


def _parameter(field: Field, name: str, default: Any) -> Any:
    return (field.get("parameters") or {}).get(name, default)


def _source_type(field: Field) -> str:
    source: str = _parameter(field, "__debezium.source.column.type", "")
    return source.upper()


def _plain(field: Field) -> Typed:
    kind = _CONNECT.get(field["type"], "any")
    return kind if kind == "bytes" else _POSTGRESQL.get(_source_type(field)) or kind, None


def _decimal(field: Field) -> Typed:
    digits = 20 if _source_type(field).startswith(_UNSIGNED) else 0
    scale, precision = int(_parameter(field, "scale", 0)), int(_parameter(field, "connect.decimal.precision", digits))
    return decimal_type(precision, scale), decimal_from_bytes(scale)


def _bits(field: Field) -> Typed:
    return "bits", bits(int(_parameter(field, "length", 1)), varying=_source_type(field) == "VARBIT")


def _array(field: Field) -> Typed:
    element, convert = connect_type(field.get("items") or {})
    return f"array<{element}>", list_of(convert) if convert else None


def _string(field: Field) -> Typed:
    source = _source_type(field).partition(" ")[0]
    if source not in _NUMBERS:
        return _plain(field)
    if source == "FLOAT":  # its length is of binary digits
        return "numeric", number
    precision = int(_parameter(field, "__debezium.source.column.length", 0))
    return decimal_type(precision, int(_parameter(field, "__debezium.source.column.scale", -1))), number


def _int64(field: Field) -> Typed:
    return ("decimal(20,0)", unsigned) if _source_type(field).startswith(_UNSIGNED) else _plain(field)


def _is(canonical: str, convert: Convert | None = None) -> Callable[[Field], Typed]:
    return lambda _: (canonical, convert)


_BY_NAME: Mapping[str | None, Callable[[Field], Typed]] = {
    "io.debezium.time.Date": _is("date", date_from_days),
    "org.apache.kafka.connect.data.Date": _is("date", date_from_days),
    "io.debezium.time.IsoDate": _is("date", iso),
    "io.debezium.time.Timestamp": _is("timestamp", timestamp_from(MILLIS)),
    "org.apache.kafka.connect.data.Timestamp": _is("timestamp", timestamp_from(MILLIS)),
    "io.debezium.time.MicroTimestamp": _is("timestamp", timestamp_from(MICROS)),
    "io.debezium.time.NanoTimestamp": _is("timestamp", timestamp_from(NANOS)),
    "io.debezium.time.IsoTimestamp": _is("timestamp", iso),
    "io.debezium.time.ZonedTimestamp": _is("timestamptz"),
    "io.debezium.time.Time": _is("time", time_from(MILLIS)),
    "org.apache.kafka.connect.data.Time": _is("time", time_from(MILLIS)),
    "io.debezium.time.MicroTime": _is("time", time_from(MICROS)),
    "io.debezium.time.NanoTime": _is("time", time_from(NANOS)),
    "io.debezium.time.IsoTime": _is("time", iso),
    "io.debezium.time.ZonedTime": _is("timetz"),
    "io.debezium.time.Year": _is("int", year),
    "io.debezium.time.MicroDuration": _is("interval"),
    "io.debezium.time.Interval": _is("interval"),
    "io.debezium.data.Bits": _bits,
    "io.debezium.data.VariableScaleDecimal": _is("numeric", variable_decimal),
    "io.debezium.data.Uuid": _is("uuid"),
    "io.debezium.data.Json": _is("json"),
    "org.apache.kafka.connect.data.Decimal": _decimal,
}
"""By semantic type."""
_BY_KIND: Mapping[str | None, Callable[[Field], Typed]] = {
    "array": _array, "string": _string, "int64": _int64, "struct": _is("any"), None: _is("any"),
    **{kind: _is(_CONNECT[kind], number) for kind in ("float", "float32", "float64", "double")},
}  # fmt: skip
"""By kind, where a field has no semantic type that changes its encoding."""


def decimal_type(precision: int, scale: int) -> str:
    """`decimal(p,s)` where Delta can hold it, else `numeric` (kept as exact text)."""
    return f"decimal({precision},{scale})" if 0 < precision <= 38 and 0 <= scale <= precision else "numeric"


def dms_type(column: Mapping[str, Any]) -> str:
    """Canonical type of a column in a DMS control record; names the page does not list are `any`."""
    kind = str(column.get("type", "")).upper()
    if kind == "NUMERIC":
        return decimal_type(int(column.get("precision", 0)), int(column.get("scale", -1)))
    return _DMS.get(kind, "any")


_CANONICAL: Mapping[str, tuple[Convert | None, str]] = {
    "smallint": (integer, "smallint"), "int": (integer, "int"), "bigint": (integer, "bigint"), "numeric": (number, "string"),
    "real": (number, "float"), "double": (number, "double"), "boolean": (boolean, "boolean"), "bytes": (binary, "binary"),
    "hex": (hexadecimal, "binary"),
    "date": (date_from_days, "date"), "timestamp": (timestamp_from(MICROS), "timestamp_ntz"),
    "timestamptz": (in_utc, "timestamp"),
}  # fmt: skip
"""By canonical type: the converter of values that came without their schema, and the Spark type. Any other is text."""
_AS_TEXT: tuple[Convert | None, str] = (None, "string")
_ARRAY = re.compile(r"array<(.+)>")


@cache
def converter(canonical: str) -> Convert | None:
    """The converter for a declared or announced type, for values that came without their schema."""
    if canonical.startswith("decimal("):
        return number
    elements = _ARRAY.fullmatch(canonical)
    return array_of(converter(elements[1])) if elements else _CANONICAL.get(canonical, _AS_TEXT)[0]


def spark_type(canonical: str) -> str:
    """The Delta column type that holds a canonical type without loss; text where Spark has none."""
    if canonical.startswith("decimal("):
        return canonical
    elements = _ARRAY.fullmatch(canonical)
    return f"array<{spark_type(elements[1])}>" if elements else _CANONICAL.get(canonical, _AS_TEXT)[1]

"""Avro by its writer's schema, as the JSON converter would have written the same value.

Kafka Connect's Avro converters (Confluent's `AvroData`, and AWS Glue's copy of it) keep a field's Connect type, name and
parameters as properties of its Avro schema (`connect.type`, `connect.name`, `connect.parameters`). A schema without them
(`connect.meta.data=false`, another producer) is read by its logical types.
"""

from __future__ import annotations

import io
import json
import math
from binascii import b2a_base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from transforms.envelopes.registry import FramedError
from transforms.values.types import Field

type Schema = Any
"""A parsed Avro schema: a name, a list of branches, or an object."""
type Shape = Callable[[Any], Any]
"""From a value as fastavro reads it to the one that JSON has."""

_CONNECT = {
    "int": "int32", "long": "int64", "float": "float", "double": "double", "boolean": "boolean", "string": "string",
    "bytes": "bytes", "fixed": "bytes", "enum": "string", "array": "array", "map": "map", "record": "struct", "error": "struct",
}  # fmt: skip
_LOGICAL = "ragstream.logicalType"
_BY_LOGICAL_TYPE = {
    "decimal": "org.apache.kafka.connect.data.Decimal", "date": "org.apache.kafka.connect.data.Date",
    "time-millis": "org.apache.kafka.connect.data.Time", "time-micros": "io.debezium.time.MicroTime",
    "timestamp-millis": "org.apache.kafka.connect.data.Timestamp", "timestamp-micros": "io.debezium.time.MicroTimestamp",
    "local-timestamp-millis": "org.apache.kafka.connect.data.Timestamp",
    "local-timestamp-micros": "io.debezium.time.MicroTimestamp", "uuid": "io.debezium.data.Uuid",
}  # fmt: skip
"""Connect's names of Avro's logical types, where a schema does not tell them."""
_MAP_ENTRIES = frozenset(
    f"{namespace}.MapEntry"
    for namespace in ("io.confluent.connect.avro", "com.amazonaws.services.schemaregistry.kafkaconnect.avrodata")
)
_PLAIN_FROM, _PLAIN_TO = 1e-3, 1e7
"""Between them Java writes a double without an exponent (`Double.toString`)."""


@dataclass(frozen=True)
class AvroSchema:
    """A writer's schema, ready to read."""

    read: Callable[[bytes], Any]
    """From a payload to the value that the JSON converter would have written; raises FramedError where it does not fit."""
    field: Field
    """The schema as the JSON converter would have written it."""


def parsed(definition: str, references: tuple[str, ...] = ()) -> AvroSchema:
    """Parse a schema; raises ValueError, LookupError or TypeError for what is no Avro schema."""
    import fastavro

    named: dict[str, Any] = {}
    try:
        for text in references:
            fastavro.parse_schema(_without_logical_types(json.loads(text)), named)
        schema = fastavro.parse_schema(_without_logical_types(json.loads(definition)), named)
    except fastavro.schema.SchemaParseException as error:
        raise ValueError(type(error).__name__) from None
    shape = _Shapes(named).of(schema)

    def read(payload: bytes) -> Any:
        stream = io.BytesIO(payload)
        try:
            value = fastavro.schemaless_reader(stream, schema, None)
        except (ValueError, LookupError, TypeError, EOFError, ArithmeticError, MemoryError, RecursionError) as error:
            why = f"the value does not fit its Avro schema: {type(error).__name__}"
            raise FramedError(why, "MALFORMED_AVRO") from None
        if stream.tell() != len(payload):
            raise FramedError("the value goes on behind what its Avro schema describes", "MALFORMED_AVRO")
        return value if shape is None else shape(value)

    return AvroSchema(read, _Fields(named).of(schema))


def _without_logical_types(schema: Schema) -> Schema:
    """A schema whose values are read as they are encoded; fastavro would make dates and decimals of them."""
    if isinstance(schema, list):
        return [_without_logical_types(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    nested = {"type", "items", "values", "fields"}
    return {
        _LOGICAL if name == "logicalType" else name: _without_logical_types(part) if name in nested else part
        for name, part in schema.items()
    }


def _branches(schema: list[Schema]) -> list[Schema]:
    return [branch for branch in schema if branch not in ("null", {"type": "null"})]


@dataclass
class _Shapes:
    """The shapes of one schema's parts; None where a value stays as it is."""

    named: Mapping[str, Schema]
    records: dict[str, _Record] = field(default_factory=dict)

    def of(self, schema: Schema) -> Shape | None:
        if isinstance(schema, list):
            return self._union(_branches(schema))
        kind = schema["type"] if isinstance(schema, dict) else schema
        if isinstance(kind, (dict, list)):
            return self.of(kind)
        if kind in _SHAPES:
            return _SHAPES[kind]
        if kind == "array":
            return _listed(self.of(schema["items"]))
        if kind == "map":
            return _mapped(self.of(schema["values"]))
        if kind in {"record", "error"}:
            return self._record(schema)
        return self.of(self.named[kind]) if kind in self.named else None

    def _record(self, schema: Schema) -> Shape | None:
        name = schema["name"]
        if name in self.records:
            return self.records[name]
        self.records[name] = record = _Record()
        shapes = ((part["name"], self.of(part["type"])) for part in schema["fields"])
        record.fields = [(name, shape) for name, shape in shapes if shape is not None]
        return record if record.fields else None

    def _union(self, branches: list[Schema]) -> Shape | None:
        shapes = [self.of(branch) for branch in branches]
        if all(shape is None for shape in shapes):
            return None
        if len(shapes) > 1:
            return _by_value
        (shape,) = shapes
        return None if shape is None else lambda value: None if value is None else shape(value)


@dataclass
class _Record:
    """Shapes a record in place; it may hold itself."""

    fields: list[tuple[str, Shape]] = field(default_factory=list)

    def __call__(self, value: dict[str, Any]) -> dict[str, Any]:
        for name, shape in self.fields:
            part = value[name]
            if part is not None:
                value[name] = shape(part)
        return value


def _listed(shape: Shape | None) -> Shape | None:
    return None if shape is None else lambda values: [shape(value) for value in values]


def _mapped(shape: Shape | None) -> Shape | None:
    return None if shape is None else lambda values: {name: shape(value) for name, value in values.items()}


def _by_value(value: Any) -> Any:
    """Shape a value of a union of several types, of which fastavro does not tell the branch."""
    if isinstance(value, bytes):
        return _base64(value)
    if isinstance(value, float):
        return _double(value)
    if isinstance(value, list):
        return [_by_value(item) for item in value]
    return {name: _by_value(item) for name, item in value.items()} if isinstance(value, dict) else value


def _base64(value: bytes) -> str:
    return b2a_base64(value, newline=False).decode()


def _double(value: float) -> Any:
    return _as_java(value, repr(value))


def _float(value: float) -> Any:
    return _as_java(value, str(np.float32(value)))


_SHAPES: Mapping[str, Shape] = {"bytes": _base64, "fixed": _base64, "float": _float, "double": _double}


def _as_java(value: float, shortest: str) -> Any:
    """The number with the digits that the JSON converter writes (Java's `toString`); NaN and infinities as its text."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    sign, digits, exponent = Decimal(shortest).normalize().as_tuple()
    assert isinstance(exponent, int)  # noqa: S101 - it is finite
    is_plain = value == 0 or _PLAIN_FROM <= abs(value) < _PLAIN_TO
    zeros = max(exponent + 1 if is_plain else 2 - len(digits), 0)
    return Decimal((sign, (*digits, *([0] * zeros)), exponent - zeros))


@dataclass
class _Fields:
    """The parts of one schema as fields of a Connect schema."""

    named: Mapping[str, Schema]
    enclosing: set[str] = field(default_factory=set)
    """Records that are being described; one that holds itself is described once."""

    def of(self, schema: Schema) -> Field:
        if isinstance(schema, list):
            branches = _branches(schema)
            described = self.of(branches[0]) if len(branches) == 1 else {"type": "struct"}
            return {**described, "optional": len(branches) < len(schema)}
        if isinstance(schema, str):
            plain = {"type": _CONNECT.get(schema, schema), "optional": False}
            return self.of(self.named[schema]) if schema in self.named else plain
        kind = schema["type"]
        if isinstance(kind, (dict, list)) or kind in self.named:
            return self.of(kind)
        connect = schema.get("connect.type") or _CONNECT.get(kind, kind)
        return {"type": connect, "optional": False, **_named(schema), **self._inside(schema, kind)}

    def _inside(self, schema: Schema, kind: str) -> Field:
        if kind == "array":
            items = self.of(schema["items"])
            return {"type": "map"} if items.get("name") in _MAP_ENTRIES else {"items": items}
        if kind not in {"record", "error"} or schema["name"] in self.enclosing:
            return {}
        self.enclosing.add(schema["name"])
        fields = [self._field(part) for part in schema["fields"]]
        self.enclosing.discard(schema["name"])
        return {"fields": fields}

    def _field(self, part: Schema) -> Field:
        """A field; parameters on it say what a type that was named before does not (`AvroData.addAvroRecordField`)."""
        described = self.of(part["type"])
        parameters = {**(described.get("parameters") or {}), **(part.get("connect.parameters") or {})}
        return {**described, "field": part["name"]} | ({"parameters": parameters} if parameters else {})


def _named(schema: Schema) -> Field:
    """The semantic type, its parameters and its default."""
    logical = schema.get(_LOGICAL)
    name = schema.get("connect.name") or _BY_LOGICAL_TYPE.get(logical) or schema.get("name")
    parameters = schema.get("connect.parameters")
    if parameters is None and logical == "decimal":
        precision = schema.get("precision", 0)
        parameters = {"scale": str(schema.get("scale", 0)), "connect.decimal.precision": str(precision)}
    described = {"name": name, "parameters": parameters, "default": schema.get("connect.default")}
    return {key: value for key, value in described.items() if value is not None}

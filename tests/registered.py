"""Records as a registry's serializers would have written them: Kafka Connect's schemas as Avro and JSON Schema, and their frames.

Written after Confluent's `AvroData` and `JsonSchemaData`, and AWS Glue's `ConnectSchemaToJsonSchemaConverter`.
"""

from __future__ import annotations

import base64
import io
import json
import re
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import fastavro

from schemas.records import Record
from transforms.envelopes.registry import RegisteredSchema, RegistryKind

type Json = Any
type Register = Callable[[RegisteredSchema], str]

_AVRO = {
    "int8": "int", "int16": "int", "int32": "int", "int64": "long", "float": "float", "double": "double", "boolean": "boolean",
    "string": "string", "bytes": "bytes",
}  # fmt: skip
_LOGICAL = {"Decimal": "decimal", "Date": "date", "Time": "time-millis", "Timestamp": "timestamp-millis"}
_JSON = {
    "int8": "integer", "int16": "integer", "int32": "integer", "int64": "integer", "float": "number", "double": "number",
    "boolean": "boolean", "string": "string", "bytes": "string",
}  # fmt: skip


@dataclass
class Known:
    """Schemas by id, as a `SchemaRegistry`."""

    kind: RegistryKind
    schemas: dict[str, RegisteredSchema] = field(default_factory=dict)

    def register(self, schema: RegisteredSchema) -> str:
        """The id of a schema: the same one for the same schema."""
        for name, known in self.schemas.items():
            if known == schema:
                return name
        number = len(self.schemas) + 1
        name = str(number) if self.kind == "confluent" else str(uuid.UUID(int=number << 64 | 7))
        self.schemas[name] = schema
        return name

    def schema(self, name: str) -> RegisteredSchema | None:
        return self.schemas.get(name)


def framed(kind: RegistryKind, name: str, payload: bytes, *, compressed: bool = False) -> bytes:
    """A payload in the frame of its registry."""
    if kind == "confluent":
        return b"\0" + int(name).to_bytes(4, "big") + payload
    body = zlib.compress(payload) if compressed else payload
    return bytes([3, 5 if compressed else 0]) + uuid.UUID(name).bytes + body


def as_registered(record: Record, form: str, kind: RegistryKind, register: Register) -> Record:
    """A record of the JSON converter with schema blocks, as converters of a registry write it: form `AVRO` or `JSON`."""
    value, key = (_registered(part, form, kind, register) for part in (record.value, record.key))
    headers = tuple((name, _registered(data, form, kind, register)) for name, data in record.headers)
    return record._replace(value=value, key=key, headers=headers)


def _registered(data: bytes | None, form: str, kind: RegistryKind, register: Register) -> bytes | None:
    document = json.loads(data) if data and data.startswith(b"{") else None
    if not isinstance(document, dict) or document.keys() != {"schema", "payload"}:
        return data
    block, payload = document["schema"], document["payload"]
    if form == "AVRO":
        schema = avro_schema(block, set())
        name = register(RegisteredSchema("AVRO", json.dumps(schema)))
        return framed(kind, name, encoded(schema, avro_value(block, payload)), compressed=True)
    schema = json_schema(block, glue=kind == "glue")
    payload = without_nulls(payload) if kind == "glue" else payload
    name = register(RegisteredSchema("JSON", json.dumps(schema)))
    return framed(kind, name, json.dumps(payload).encode(), compressed=True)


def without_nulls(value: Json) -> Json:
    """A value without the members that are null, as AWS Glue's converter writes it."""
    if isinstance(value, dict):
        return {name: without_nulls(part) for name, part in value.items() if part is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def encoded(schema: Json, value: Any) -> bytes:
    """A value in Avro."""
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(_plain(schema)), value)
    return stream.getvalue()


def adjusted(name: str) -> str:
    """A name as Debezium adjusts it for Avro (`field.name.adjustment.mode=avro`)."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


def avro_schema(block: Json, seen: set[str]) -> Json:
    """The Avro schema of a Connect schema; `seen` are the records that have their names already."""
    base = _avro_base(block, seen)
    if isinstance(base, dict):
        parameters = block.get("parameters")
        base |= {"connect.parameters": parameters} if parameters else {}
        base |= {"connect.name": block["name"]} if block.get("name") else {}
        base |= {"connect.version": block["version"]} if block.get("version") else {}
        base |= {"connect.default": block["default"]} if block.get("default") is not None else {}
    if not block.get("optional"):
        return base
    return [base, "null"] if block.get("default") is not None else ["null", base]


def _avro_base(block: Json, seen: set[str]) -> Json:
    kind = block["type"]
    if kind == "array":
        return {"type": "array", "items": avro_schema(block["items"], seen)}
    if kind == "map":
        return {"type": "map", "values": avro_schema(block["values"], seen)}
    if kind == "struct":
        name = ".".join(map(adjusted, (block.get("name") or "io.confluent.connect.avro.ConnectDefault").split(".")))
        if name in seen:
            return name
        seen.add(name)
        namespace, _, short = name.rpartition(".")
        return {
            "type": "record",
            "name": short,
            "namespace": namespace,
            "fields": [_avro_field(f, seen) for f in block["fields"]],
        }
    base = {"type": _AVRO[kind]} | ({"connect.type": kind} if kind in {"int8", "int16"} else {})
    package, _, short = (block.get("name") or "").rpartition(".")
    if package == "org.apache.kafka.connect.data":
        base["logicalType"] = _LOGICAL[short]
    if short == "Decimal":
        base |= {"scale": int(block["parameters"]["scale"]), "precision": 64}
    return base


def _avro_field(block: Json, seen: set[str]) -> Json:
    again = block["type"] == "struct" and block.get("name") in seen
    described = {"name": adjusted(block["field"]), "type": avro_schema(block, seen)}
    if again and block.get("parameters"):
        described["connect.parameters"] = block["parameters"]
    return described


def _plain(schema: Json) -> Json:
    """A schema without logical types, which Connect's negative scales and wide precisions are no valid ones of."""
    if isinstance(schema, list):
        return list(map(_plain, schema))
    if not isinstance(schema, dict):
        return schema
    return {n: _plain(part) for n, part in schema.items() if n != "logicalType" and not n.startswith("connect.")}


def avro_value(block: Json, value: Any) -> Any:
    """A payload of the JSON converter as the Avro converter takes it."""
    if value is None:
        return None
    match block["type"]:
        case "struct":
            return {adjusted(f["field"]): avro_value(f, value.get(f["field"])) for f in block["fields"]}
        case "array":
            return [avro_value(block["items"], item) for item in value]
        case "map":
            return {name: avro_value(block["values"], item) for name, item in value.items()}
        case "bytes":
            return base64.b64decode(value)
        case "float" | "double":
            return float(value)
        case _:
            return value


def json_schema(block: Json, *, glue: bool, place: int | None = None) -> Json:
    """The JSON Schema of a Connect schema, as Confluent's converter or AWS Glue's registers it."""
    kind = block["type"]
    index: dict[str, Any] = {} if place is None else {"connect.index": place}
    described: dict[str, Any] = {"connect.name" if glue else "title": block["name"]} if block.get("name") else {}
    if block.get("parameters"):
        described["connect.parameters"] = block["parameters"]
    if block.get("default") is not None:
        described["default"] = block["default"]
    connect = {"float": "float32", "double": "float64"}.get(kind, kind)
    if glue or connect in {"int8", "int16", "int32", "int64", "float32", "float64", "bytes", "map"}:
        described["connect.type"] = connect
    if kind == "struct":
        parts = {f["field"]: json_schema(f, glue=glue, place=i) for i, f in enumerate(block["fields"])}
        described |= {"type": "object", "properties": parts}
    elif kind == "array":
        described |= {"type": "array", "items": json_schema(block["items"], glue=glue)}
    elif kind == "map":
        described |= {"type": "object", "additionalProperties": json_schema(block["values"], glue=glue)}
    else:
        described["type"] = _JSON[kind]
    if not block.get("optional"):
        return described | index
    options = [{"type": "null"}, described]
    return {"oneOf": options[::-1] if glue else options} | index

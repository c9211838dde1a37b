"""JSON Schema as Kafka Connect's converters register it, read as the Connect schema that it was made from.

Confluent's converter (`JsonSchemaData`) keeps a field's Connect name as `title`, AWS Glue's as `connect.name`; both keep
`connect.type` and `connect.parameters`. The values are those of the JSON converter, but that AWS Glue's leaves out members that
are null. Its properties are in no order, and fields of one type share a `connect.index`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transforms.values.types import Field

_KINDS = {
    "integer": "int64", "number": "float64", "string": "string", "boolean": "boolean", "array": "array", "object": "struct",
}  # fmt: skip
"""Connect's types of JSON Schema's, where `connect.type` does not tell them."""
_MOST_DEPTH = 64
_INDEX = "connect.index"


type Shape = Callable[[Any], Any]


@dataclass(frozen=True)
class JsonSchema:
    """A registered schema, ready to read."""

    field: Field
    """The schema as the JSON converter would have written it."""
    shape: Shape
    """From a value to the one that the JSON converter would have written."""


def parsed(definition: str) -> JsonSchema:
    """Parse a schema; raises ValueError or TypeError for text that is no JSON object."""
    schema = json.loads(definition)
    if not isinstance(schema, dict):
        raise TypeError("a JSON Schema is an object")
    field = _field(schema, schema, 0)
    shape = (
        _shape(field) if _INDEX in definition else None
    )  # a struct of Connect has a value for each field, if it is null
    return JsonSchema(field, shape or (lambda value: value))


def _shape(field: Field) -> Shape | None:
    match field.get("type"):
        case "struct":
            return _struct([(part["field"], _shape(part)) for part in field.get("fields") or ()])
        case "array" if (items := _shape(field.get("items") or {})) is not None:
            return lambda values: [items(v) for v in values] if isinstance(values, list) else values
        case _:
            return None


def _struct(shapes: Sequence[tuple[str, Shape | None]]) -> Shape:
    def shape(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        whole = dict.fromkeys(name for name, _ in shapes) | value
        for name, part in shapes:
            if part is not None:
                whole[name] = part(whole[name])
        return whole

    return shape


def _field(schema: Any, root: Mapping[str, Any], depth: int) -> Field:
    if not isinstance(schema, dict) or depth > _MOST_DEPTH:
        return {}
    if "$ref" in schema:
        return _field(_target(schema["$ref"], root), root, depth + 1)
    every = schema.get("oneOf") or schema.get("anyOf") or ()
    options = [option for option in every if option.get("type") != "null"]
    if options:
        inner = _field(options[0], root, depth + 1) if len(options) == 1 else {"type": "struct"}
        return {**inner, "optional": len(options) < len(every)}
    kind = schema.get("connect.type") or _KINDS.get(_type(schema))
    described: dict[str, Any] = {
        "type": kind,
        "name": schema.get("connect.name") or schema.get("title"),
        "optional": False,
    }
    described |= {"parameters": schema.get("connect.parameters"), "default": schema.get("default")}
    if kind == "array":
        described["items"] = _field(schema.get("items"), root, depth + 1)
    if kind == "struct":
        parts = schema.get("properties") or {}
        described["fields"] = [{**_field(part, root, depth + 1), "field": name} for name, part in parts.items()]
    return {key: value for key, value in described.items() if value is not None}


def _type(schema: Mapping[str, Any]) -> str:
    kinds = schema.get("type")
    return next((kind for kind in kinds if kind != "null"), "") if isinstance(kinds, list) else str(kinds)


def _target(reference: str, root: Mapping[str, Any]) -> Any:
    """The part of the same document that a reference names; nothing for another document's."""
    if not reference.startswith("#"):
        return None
    part: Any = root
    for name in filter(None, reference[1:].split("/")):
        part = part.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(part, dict) else None
    return part

"""Values and keys that a schema registry's serializer framed: a few bytes before the payload name its schema.

Confluent's wire format is a zero and a schema id of 4 bytes, Apicurio's own one of 8; AWS Glue Schema Registry's is a 3, the
compression (0: none, 5: zlib, of the payload alone) and the 16 bytes of a schema version's id (AWSSchemaRegistryConstants,
GlueSchemaRegistryDeserializerDataParser). An id of 4 bytes is never zero, so a zero there begins one of 8.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, Protocol

type RegistryKind = Literal["confluent", "glue"]

MAX_PAYLOAD_BYTES = 64 * 1024 * 1024
"""A payload that inflates beyond this is rejected unread."""
_KINDS: dict[int, RegistryKind] = {0: "confluent", 3: "glue"}
_NAMES = {"confluent": "Confluent's or Apicurio's", "glue": "AWS Glue Schema Registry's"}
_LENGTHS = {"confluent": (5, 9), "glue": (18,)}
_UNCOMPRESSED, _ZLIB = 0, 5
_MEND = (
    "name the registry under `registry` of this source, or let the connector write JSON: key.converter and value.converter "
    "org.apache.kafka.connect.json.JsonConverter"
)


class FramedError(ValueError):
    """A framed value that cannot be read; the message says why and how to mend it, and holds no value."""

    def __init__(self, message: str, condition: str = "REGISTRY_FRAMED") -> None:
        """`condition` is that of the reject."""
        super().__init__(message)
        self.condition = condition


class RegisteredSchema(NamedTuple):
    """A schema as its registry has it. One id names one schema for ever."""

    format: str
    """AVRO, JSON or PROTOBUF."""
    definition: str
    references: tuple[str, ...] = ()
    """Definitions that it names, those first that others name."""


class SchemaRegistry(Protocol):
    """The schemas of one registry by id: plain data that travels with a `DecodeContext`; the lookup is its maker's affair."""

    @property
    def kind(self) -> RegistryKind:
        """Whose framing its schemas' ids stand in."""

    def schema(self, name: str) -> RegisteredSchema | None:
        """The schema of an id (a number, or a schema version's UUID); None where there is none.

        The same id gives the same schema whenever it is asked. Raises UnavailableError while the registry does not answer.
        """


def is_framed(data: bytes) -> bool:
    """Whether a value or key begins as a registry's serializer frames it; JSON begins otherwise."""
    return data[:1] in {b"\0", b"\3"}


def unframed(data: bytes) -> bytes:
    """The JSON text of a value or a key whose registry is not configured; raises FramedError where it frames something else."""
    if not is_framed(data):
        return data
    kind = _KINDS[data[0]]
    if not (kind == "glue" and data[1:2] == bytes([_ZLIB])):
        for length in _LENGTHS[kind]:
            if data[length : length + 1] == b"{":
                return data[length:]
    raise FramedError(
        f"the value has {_NAMES[kind]} framing and is not plain JSON in it (Avro, Protobuf or compressed): {_MEND}"
    )


def schema_and_payload(data: bytes, registry: SchemaRegistry) -> tuple[RegisteredSchema, bytes]:
    """The schema and the payload, inflated, of a framed value.

    Raises FramedError where the value is cut short or of another registry, or its schema does not exist.
    """
    kind = _KINDS[data[0]]
    if kind != registry.kind:
        raise FramedError(
            f"the value has {_NAMES[kind]} framing, and `registry` of this source is of type {registry.kind}"
        )
    name = _schema_name(data)
    if name is None:
        raise FramedError(f"the value is shorter than {_NAMES[kind]} framing", "REGISTRY_FRAME_CUT")
    registered = registry.schema(name)
    if registered is None:
        message = f"the registry has no schema {name}; once it has, `ragstream replay` lands the record"
        raise FramedError(message, "REGISTRY_SCHEMA_MISSING")
    if kind == "glue":
        return registered, _inflated(data)
    return registered, data[9 if _is_long(data) else 5 :]


def schema_names(kind: RegistryKind, parts: Iterable[bytes | None]) -> Iterator[str]:
    """The ids that stand in the frames of values, keys and headers."""
    for data in parts:
        if data and _KINDS.get(data[0]) == kind and (name := _schema_name(data)) is not None:
            yield name


def _schema_name(data: bytes) -> str | None:
    if data[0]:
        return str(uuid.UUID(bytes=data[2:18])) if len(data) >= 18 else None
    id_bytes = data[1 : 9 if _is_long(data) else 5]
    return str(int.from_bytes(id_bytes, "big")) if len(id_bytes) in {4, 8} else None


def _is_long(data: bytes) -> bool:
    return data[1:5] == b"\0\0\0\0"


def _inflated(data: bytes) -> bytes:
    if data[1] == _UNCOMPRESSED:
        return data[18:]
    if data[1] != _ZLIB:
        raise FramedError("the value is compressed in a way that is not known here", "REGISTRY_COMPRESSION")
    inflating = zlib.decompressobj()
    try:
        payload = inflating.decompress(data[18:], MAX_PAYLOAD_BYTES)
    except zlib.error:
        raise FramedError("the value's zlib data is damaged", "REGISTRY_COMPRESSION") from None
    if not inflating.eof:
        message = f"the value's zlib data is cut short, or has more than {MAX_PAYLOAD_BYTES} bytes"
        raise FramedError(message, "REGISTRY_COMPRESSION")
    return payload

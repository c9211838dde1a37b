"""What a converter of Kafka Connect wrote: the payload of a value or a key, and the types that its schema announces.

JSON stands alone or behind its schema block. A registry's serializer frames JSON or Avro, and the registry has the schema
(`transforms.envelopes.registry`). All lead to the same payload and the same types.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from transforms.envelopes import avro, json_schema
from transforms.envelopes.event import schema_id
from transforms.envelopes.placeholders import is_never_sent, is_null_unsure
from transforms.envelopes.registry import FramedError, RegisteredSchema, is_framed, schema_and_payload, unframed
from transforms.values import exact_json
from transforms.values.encodings import Convert
from transforms.values.types import connect_type

if TYPE_CHECKING:
    from collections.abc import Callable

    from transforms.context import DecodeContext, TableContext

SCHEMA, _PAYLOAD = b'{"schema":', b',"payload":'
_PREFIX_LIMIT = 1 << 20
_FLATTENED = ("__source_", "__transaction_")
_METADATA = frozenset(
    f"__{name}"
    for name in (
        "op", "deleted", "ts_ms", "ts_us", "ts_ns", "id", "total_order", "data_collection_order",
        "version", "connector", "name", "snapshot", "db", "schema", "table", "sequence",
        "lsn", "txId", "xmin", "origin", "origin_lsn", "file", "pos", "row", "server_id", "gtid", "thread", "query",
        "change_lsn", "commit_lsn", "event_serial_no", "scn", "commit_scn", "lcr_position", "rs_id", "ssn", "txSeq",
        "redo_thread", "user_name", "redo_sql", "row_id", "start_scn", "start_ts_ms", "commit_ts_ms",
    )
)  # fmt: skip
"""Fields that ExtractNewRecordState adds (`add.fields`): of the envelope, `source` and `transaction`, with its own prefix."""


@dataclass(frozen=True)
class RowSchema:
    """The types that a schema announces, and their converters."""

    schema_id: str
    columns: Mapping[str, str]
    converters: Mapping[str, Convert]
    unsure: frozenset[str] = frozenset()
    """Columns whose null in an update may stand for an unchanged value."""
    never_sent: frozenset[str] = frozenset()
    """Columns that are null whatever the value."""
    defaulted: tuple[str, ...] = ()
    """Columns that are NOT NULL or have a default."""

    def renamed(self, table: TableContext) -> RowSchema:
        """The same types under the names that the columns have in this pipeline."""
        columns = table.named(self.columns)
        names = dict(zip(self.columns, columns, strict=True))
        return replace(
            self,
            columns=columns,
            converters={names[name]: convert for name, convert in self.converters.items()},
            unsure=frozenset(names[name] for name in self.unsure),
            never_sent=frozenset(names[name] for name in self.never_sent),
        )


NO_SCHEMA = RowSchema("", {}, {})


class SchemaBlocks:
    """The schema blocks that this process has parsed, by the prefix of a value; bounded, and any thread may call it.

    The converter writes the block first and alike for every record of a table version, so a known prefix saves parsing it
    again (nine tenths of a narrow record).
    """

    def __init__(self, most_bytes: int = 16 << 20) -> None:
        """No blocks; beyond `most_bytes` of them, all are forgotten."""
        self._most_bytes = most_bytes
        self._schemas: dict[bytes, RowSchema] = {}
        self._lock = threading.Lock()
        self.bytes = 0

    def before_payload(self, value: bytes) -> tuple[int, RowSchema] | None:
        """The length of a known block that a value begins with, and what it announces."""
        length = _block_length(value)
        schema = self._schemas.get(value[:length]) if length else None
        return None if schema is None else (length, schema)

    def add(self, block: bytes, schema: RowSchema) -> None:
        """Remember a block."""
        with self._lock:
            if self.bytes + len(block) > self._most_bytes:
                self._schemas, self.bytes = {}, 0
            if block not in self._schemas:
                self._schemas[block] = schema
                self.bytes += len(block)


def _block_length(value: bytes) -> int:
    """The bytes before a value's payload, as the converter writes them; 0 where there is no schema block."""
    if not value.startswith(SCHEMA):
        return 0
    end = value.find(_PAYLOAD, 0, _PREFIX_LIMIT)
    return 0 if end < 0 else end + len(_PAYLOAD)


_blocks = SchemaBlocks()


def payload_of(data: bytes, context: DecodeContext) -> tuple[Any, RowSchema]:
    """The payload of a value or a key, and the types of its columns.

    Raises FramedError for what a registry framed and that cannot be read, ValueError and RecursionError for other text that is
    not JSON, UnavailableError while the registry does not answer.
    """
    if context.registry is not None and is_framed(data):
        registered, payload = schema_and_payload(data, context.registry)
        reading = _reading(registered)
        return reading.payload(payload), reading.row
    return _of_json(unframed(data))


def key_of(data: bytes, context: DecodeContext) -> Any:
    """The payload of a record's key, or of a header that has one; None where it cannot be read."""
    try:
        return payload_of(data, context)[0]
    except ValueError:
        return None


def _of_json(value: bytes) -> tuple[Any, RowSchema]:
    """Parse JSON, skipping a schema block that was seen before."""
    if known := _blocks.before_payload(value):
        length, schema = known
        return exact_json.loads(value[length:-1]), schema
    document = exact_json.loads(value)
    if isinstance(document, dict) and document.keys() == {"schema", "payload"}:
        schema = row_schema(document["schema"])
        _remember(value, document["payload"], schema)
        return document["payload"], schema
    return document, NO_SCHEMA


def _remember(value: bytes, payload: Any, schema: RowSchema) -> None:
    end = _block_length(value)
    if not end or not value.endswith(b"}"):
        return
    try:
        same = exact_json.loads(value[end:-1]) == payload
    except (ValueError, RecursionError):
        return
    if same:
        _blocks.add(value[:end], schema)


def row_schema(block: Any) -> RowSchema:
    """The types of a row's columns: those of `after` in an envelope, else of the struct itself without what flattening added."""
    fields = (block.get("fields") or []) if isinstance(block, dict) else []
    after = next((part["fields"] for part in fields if part.get("field") == "after" and "fields" in part), None)
    columns = [part for part in fields if not is_metadata(part.get("field", "__op"))] if after is None else after
    if not columns:
        return NO_SCHEMA
    typed = {column["field"]: connect_type(column) for column in columns}
    types = {name: canonical for name, (canonical, _) in typed.items()}
    defaulted = tuple(column["field"] for column in columns if "default" in column or column.get("optional") is False)
    return RowSchema(
        schema_id(types, defaulted),
        types,
        {name: convert for name, (_, convert) in typed.items() if convert},
        frozenset(column["field"] for column in columns if is_null_unsure(column)),
        frozenset(column["field"] for column in columns if is_never_sent(column)),
        defaulted,
    )


def is_metadata(name: str) -> bool:
    """Whether a field is one that ExtractNewRecordState adds to a flattened row, and no column."""
    return name.startswith("__") and (name in _METADATA or name.startswith(_FLATTENED))


@dataclass(frozen=True)
class _Reading:
    """How the payloads of one registered schema are read."""

    payload: Callable[[bytes], Any]
    row: RowSchema


@lru_cache(maxsize=512)
def _reading(registered: RegisteredSchema) -> _Reading:
    """Parse a registered schema; raises FramedError for one that cannot be read."""
    try:
        if registered.format == "AVRO":
            schema = avro.parsed(registered.definition, registered.references)
            return _Reading(schema.read, row_schema(schema.field))
        if registered.format == "JSON":
            described = json_schema.parsed(registered.definition)
            return _Reading(lambda payload: described.shape(exact_json.loads(payload)), row_schema(described.field))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        message = f"the registry's schema of the value cannot be read: {type(error).__name__}"
        raise FramedError(message, "REGISTRY_SCHEMA") from None
    message = f"the value is {registered.format} by the registry; Avro and JSON Schema are read"
    raise FramedError(message, "REGISTRY_FORMAT")

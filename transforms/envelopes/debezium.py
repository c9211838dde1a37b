"""Debezium's change event envelope (JSON converter, with or without embedded schemas)."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.changes import Change, Changes, Decoded, Ignored, Reject, SeenSchema
from schemas.records import Record
from transforms.context import DecodeContext, TableContext, key_text
from transforms.envelopes.event import Event, bad_commit_time, no_key, other_table, require_exact, schema_id
from transforms.envelopes.placeholders import is_never_sent, is_null_unsure, is_placeholder
from transforms.envelopes.registry import FramedError, unframed
from transforms.positions import source_position
from transforms.positions.sequence import NoPositionError, epoch_at, is_a_commit_time, sequence, stream_position
from transforms.values import exact_json
from transforms.values.columns import Columns, column_rejects, converted, key_reject
from transforms.values.encodings import Convert
from transforms.values.types import connect_type

_OPS = ("c", "u", "d", "r", "t")
SCHEMA, _PAYLOAD = b'{"schema":', b',"payload":'
_PREFIX_LIMIT = 1 << 20
_WITH_DATABASE = frozenset({"sqlserver", "oracle"})
"""Connectors of engines whose schemas are in a database."""
_OLD_KEY, _NEW_KEY = "__debezium.oldkey", "__debezium.newkey"


@dataclass(frozen=True)
class RowSchema:
    """The types that a schema block announces, and their converters."""

    schema_id: str
    columns: Mapping[str, str]
    converters: Mapping[str, Convert]
    unsure: frozenset[str] = frozenset()
    """Columns whose null in an update may stand for an unchanged value."""
    never_sent: frozenset[str] = frozenset()
    """Columns that are null whatever the value."""
    defaulted: tuple[str, ...] = ()
    """Columns that are NOT NULL or have a default."""


_NO_SCHEMA = RowSchema("", {}, {})


class SchemaBlocks:
    """The schema blocks that this process has parsed, by the prefix of a value; bounded, and any thread may call it.

    The converter writes the block first and alike for every record of a table version, so a known prefix saves parsing it
    again (nine tenths of a narrow record).
    """

    def __init__(self, most_bytes: int = 16 << 20) -> None:
        """Know none; beyond so many bytes of them, all are forgotten."""
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
    """Up to where a value's payload begins, as the converter writes it; 0 where it does not."""
    if not value.startswith(SCHEMA):
        return 0
    end = value.find(_PAYLOAD, 0, _PREFIX_LIMIT)
    return 0 if end < 0 else end + len(_PAYLOAD)


_blocks = SchemaBlocks()


def decode(record: Record, context: DecodeContext) -> Decoded:
    """Decode one Debezium record; see `transforms.envelopes.decode.decode`."""
    if not record.value:  # Debezium Server writes an empty value where Kafka has none
        return Ignored("tombstone")
    try:
        payload, schema = _payload(unframed(record.value))
    except (ValueError, RecursionError) as error:
        return _unreadable(error)
    event = read_event(payload, record.stream, record.position, context)
    if not isinstance(event, Event):
        return event
    if event.table.renamed:
        event, payload, schema = _renamed(event, payload, schema)
    if event.op == "d":
        return _deletion(event, record, schema)
    return _upsert(event, record, payload, schema, context.unavailable_value)


def _renamed(event: Event, payload: Mapping[str, Any], schema: RowSchema) -> tuple[Event, Mapping[str, Any], RowSchema]:
    """The same change with the columns' names of this pipeline."""
    table, before = event.table, payload.get("before")
    names = dict(zip(schema.columns, table.named(schema.columns), strict=True))
    renamed = RowSchema(
        schema.schema_id,
        table.named(schema.columns),
        {names[name]: convert for name, convert in schema.converters.items()},
        frozenset(names[name] for name in schema.unsure),
        frozenset(names[name] for name in schema.never_sent),
    )
    payload = {**payload, "before": table.named(before) if isinstance(before, dict) else before}
    return event._replace(row=table.named(event.row)), payload, renamed


def read_event(payload: Any, stream: str, position: str, context: DecodeContext) -> Event | Decoded:
    """Read the change of a row from a parsed payload; of any other payload, the whole result."""
    if not isinstance(payload, dict) or "op" not in payload:
        return _without_op(payload)
    op, source = payload["op"], payload.get("source")
    if op == "m":
        return Ignored("logical message")
    if op not in _OPS or not isinstance(source, dict):
        return Reject("NOT_AN_ENVELOPE", "op is unknown or source is missing; is this Debezium's envelope?")
    name = _table_name(source, context)
    table = context.table(name, stream, source.get("name"))
    if table is None:
        return other_table(name, context)
    commit_us = _commit_time_us(source)
    if not is_a_commit_time(commit_us):
        return bad_commit_time(table)
    try:
        order = sequence(
            epoch_at(context.epoch_starts_us, commit_us), source_position(source), stream_position(position)
        )
    except (ValueError, TypeError) as error:
        why = f": {error}" if isinstance(error, NoPositionError) else " has no usable position in source"
        return Reject("NO_SEQUENCE", f"a record of {table.table}{why}", table.table)
    if op == "t":
        return _truncation(name, Change(table.table, "t", order, "", commit_time_us=commit_us))
    row = payload.get("before" if op == "d" else "after")
    return Event(table, op, order, commit_us, row if isinstance(row, dict) else {})


def _truncation(name: str, change: Change) -> Decoded:
    if name == change.table:
        return Changes((change,))
    message = f"a partition of {change.table} was truncated: its rows are not known; take a new snapshot of the table"
    return Reject("PARTITION_TRUNCATED", message, change.table)


def _unreadable(error: Exception) -> Reject:
    if isinstance(error, FramedError):
        return Reject("REGISTRY_FRAMED", str(error))
    return Reject("MALFORMED_JSON", f"the value is not JSON in UTF-8: {type(error).__name__}")


def _without_op(payload: Any) -> Decoded:
    if not isinstance(payload, dict):
        return Reject("NOT_AN_ENVELOPE", "the value is not a JSON object")
    if payload.keys() <= {"ts_ms", "ts_us", "ts_ns"}:
        return Ignored("heartbeat")
    if payload.get("status") in {"BEGIN", "END"} and "id" in payload:
        return Ignored("transaction marker")
    if "ddl" in payload or "tableChanges" in payload:
        return Ignored("schema change")
    return Reject(
        "NOT_AN_ENVELOPE", "the value has no op; flattened records (ExtractNewRecordState) lose deletes and order"
    )


def _table_name(source: Mapping[str, Any], context: DecodeContext) -> str:
    """The table as its engine names it.

    `schema.table` of PostgreSQL, `db.table` of MySQL and MariaDB, `db.schema.table` of SQL Server, whose connector may read
    several databases; Oracle's reads one, so there `schema.table` does too, where the configuration says no more.
    """
    database, schema, table = source.get("db"), source.get("schema"), source.get("table")
    connector = source.get("connector")
    if schema and type(schema) is str is type(table):
        if connector not in _WITH_DATABASE or type(database) is not str:
            return f"{schema}.{table}"
        whole = f"{database}.{schema}.{table}"
        return whole if connector == "sqlserver" or context.names(whole) else f"{schema}.{table}"
    require_exact(schema, database, table)
    return f"{schema or database or ''}.{table}"


def _payload(value: bytes) -> tuple[Any, RowSchema]:
    """Parse the value, skipping a schema block that was seen before."""
    if known := _blocks.before_payload(value):
        length, schema = known
        return exact_json.loads(value[length:-1]), schema
    document = exact_json.loads(value)
    if isinstance(document, dict) and document.keys() == {"schema", "payload"}:
        schema = _row_schema(document["schema"])
        _remember(value, document["payload"], schema)
        return document["payload"], schema
    return document, _NO_SCHEMA


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


def _row_schema(block: Any) -> RowSchema:
    fields = block.get("fields", []) if isinstance(block, dict) else []
    after = next((f for f in fields if f.get("field") == "after"), None)
    if not after or "fields" not in after:
        return _NO_SCHEMA
    typed = {f["field"]: connect_type(f) for f in after["fields"]}
    columns = {name: canonical for name, (canonical, _) in typed.items()}
    defaulted = tuple(f["field"] for f in after["fields"] if "default" in f or f.get("optional") is False)
    return RowSchema(
        schema_id(columns, defaulted),
        columns,
        {name: convert for name, (_, convert) in typed.items() if convert},
        frozenset(f["field"] for f in after["fields"] if is_null_unsure(f)),
        frozenset(f["field"] for f in after["fields"] if is_never_sent(f)),
        defaulted,
    )


def seen_schema(record: Record, context: DecodeContext, order: str = "") -> SeenSchema | None:
    """The schema block of a record of that sequence, as a row of the `schemas` table; None where it carries none."""
    value = unframed(record.value or b"")
    if not value.startswith(SCHEMA):
        return None
    payload, schema = _payload(value)
    source = payload.get("source") if isinstance(payload, dict) else None
    if not schema.schema_id or not isinstance(source, dict):
        return None
    table = context.table(_table_name(source, context), record.stream, source.get("name"))
    if table is None:
        return None
    keys = _key_names(record.key) or table.keys
    return SeenSchema(schema.schema_id, table.table, schema.columns, keys, order, schema.defaulted)


def _key_names(key: bytes | None) -> tuple[str, ...]:
    """The columns of the key that a record was sent with."""
    row = _key_row(key)
    return tuple(row) if row else ()


def _deletion(event: Event, record: Record, schema: RowSchema) -> Decoded:
    """Only the key of a row that is gone matters."""
    table = event.table
    key = _key_in(event.row, table, schema) or _key_of(record.key, table, schema)
    if key is None:
        return no_key(table, schema.columns)
    new_key = _header_key(record, _NEW_KEY, table, schema)
    return Changes((Change(table.table, "d", event.sequence, key, new_key=new_key, commit_time_us=event.commit_us),))


def _upsert(event: Event, record: Record, payload: Mapping[str, Any], schema: RowSchema, placeholder: str) -> Decoded:
    table, op, order, commit_us, row, *_ = event
    old_key = _header_key(record, _OLD_KEY, table, schema)
    missing = _not_sent(event, record, payload, schema, placeholder)
    known = {name: value for name, value in row.items() if name not in missing} if missing else row
    values, unfit = _canonical(known, table, schema)
    bad_key = key_reject(table.table, table.keys, unfit) if unfit else None
    if bad_key:
        return bad_key
    key = key_text(table.keys, values)
    if key is None:
        return no_key(table, schema.columns)
    unresolved = (*missing, *unfit)
    complete = not unresolved or old_key is not None
    change = Change(
        table.table, op, order, key, values, complete, unresolved, old_key, None, commit_us, schema.schema_id or None
    )
    return Changes((change,), column_rejects(change, unfit) if unfit else ())


def _not_sent(
    event: Event, record: Record, payload: Mapping[str, Any], schema: RowSchema, placeholder: str
) -> tuple[str, ...]:
    """Columns whose value the log did not have: the announced ones that are missing among them.

    A null that may be unsent counts as NULL in an insert and a snapshot, which have the whole row, and where the old row
    shows that the log has whole rows (REPLICA IDENTITY FULL): by a value in that very column. Another database's log has.
    """
    before = payload.get("before") or {}
    leaves_out = schema.unsure and payload["source"].get("connector", "postgresql") == "postgresql"
    updates = leaves_out and (event.op == "u" or any(name == _OLD_KEY for name, _ in record.headers))
    unsure = schema.never_sent | schema.unsure if updates else schema.never_sent
    row = event.row
    absent = tuple(name for name in schema.columns if name not in row) if len(row) < len(schema.columns) else ()
    return absent + tuple(
        name
        for name, value in row.items()
        if (name in unsure and before.get(name) is None if value is None else is_placeholder(value, placeholder))
    )


def _canonical(row: dict[str, Any], table: TableContext, schema: RowSchema) -> Columns:
    return converted(row, schema.converters, table.converters) if table.columns else converted(row, schema.converters)


def _key_in(row: Mapping[str, Any], table: TableContext, schema: RowSchema) -> str | None:
    return key_text(
        table.keys, _canonical({name: row[name] for name in table.keys if name in row}, table, schema).values
    )


def _key_of(key: bytes | None, table: TableContext, schema: RowSchema) -> str | None:
    row = _key_row(key)
    return None if row is None else _key_in(table.named(row), table, schema)


def _key_row(key: bytes | None) -> dict[str, Any] | None:
    if key is None:
        return None
    try:
        row = exact_json.loads(unframed(key))
    except ValueError:
        return None
    if isinstance(row, dict) and row.keys() == {"schema", "payload"}:
        row = row["payload"]
    return row if isinstance(row, dict) else None


def _header_key(record: Record, name: str, table: TableContext, schema: RowSchema) -> str | None:
    value = next((v for n, v in record.headers if n == name), None)
    return _key_of(value, table, schema) if value else None


def _commit_time_us(source: Mapping[str, Any]) -> int | None:
    micros = source.get("ts_us")
    if type(micros) is int:  # a bool is an int to Python
        return micros
    millis = source.get("ts_ms")
    require_exact(micros, millis)
    return millis * 1000 if type(millis) is int else None

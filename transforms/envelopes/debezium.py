"""Debezium's change event envelope, in whatever form a converter wrote it (`transforms.envelopes.connect`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.changes import Change, Changes, Decoded, Ignored, Reject
from schemas.records import Record
from transforms.context import DecodeContext, TableContext, key_text
from transforms.envelopes.connect import RowSchema, key_of, payload_of
from transforms.envelopes.event import Event, bad_commit_time, no_key, other_table, require_exact, unreadable
from transforms.envelopes.placeholders import is_placeholder
from transforms.positions import source_position
from transforms.positions.sequence import NoPositionError, epoch_at, is_a_commit_time, sequence, stream_position
from transforms.values.columns import Columns, column_rejects, converted, key_reject

_OPS = ("c", "u", "d", "r", "t")
_WITH_DATABASE = frozenset({"sqlserver", "oracle"})
"""Connectors of engines whose schemas are in a database."""
_OLD_KEY, _NEW_KEY = "__debezium.oldkey", "__debezium.newkey"


def decode(record: Record, context: DecodeContext) -> Decoded:
    """Decode one Debezium record; see `transforms.envelopes.decode.decode`."""
    if not record.value:  # Debezium Server writes an empty value where Kafka has none
        return Ignored("tombstone")
    try:
        payload, schema = payload_of(record.value, context)
    except (ValueError, RecursionError) as error:
        return unreadable(error)
    return decode_payload(record, payload, schema, context)


def decode_payload(record: Record, payload: Any, schema: RowSchema, context: DecodeContext) -> Decoded:
    """Decode the parsed envelope of a record."""
    event = read_event(payload, record.stream, record.position, context)
    if not isinstance(event, Event):
        return event
    if event.table.renamed:
        event, schema = event.renamed(), schema.renamed(event.table)
    if event.op == "d":
        return _deletion(event, record, schema, context)
    return _upsert(event, record, payload["source"].get("connector", "postgresql"), schema, context)


def read_event(payload: Any, stream: str, position: str, context: DecodeContext) -> Event | Decoded:
    """Read the change of a row from a parsed payload; of any other payload, the whole result."""
    if not isinstance(payload, dict) or "op" not in payload:
        return without_op(payload)
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
    before, after = payload.get("before"), payload.get("after")
    row = before if op == "d" else after
    old = before if op == "u" and isinstance(before, dict) else None
    return Event(table, op, order, commit_us, row if isinstance(row, dict) else {}, old)


def _truncation(name: str, change: Change) -> Decoded:
    if name == change.table:
        return Changes((change,))
    message = f"a partition of {change.table} was truncated: its rows are not known; take a new snapshot of the table"
    return Reject("PARTITION_TRUNCATED", message, change.table)


def without_op(payload: Any) -> Decoded:
    """Decide on a value without an operation: heartbeats and markers are ignored."""
    if not isinstance(payload, dict):
        return Reject("NOT_AN_ENVELOPE", "the value is not a JSON object")
    if payload.keys() <= {"ts_ms", "ts_us", "ts_ns"}:
        return Ignored("heartbeat")
    if payload.get("status") in {"BEGIN", "END"} and "id" in payload:
        return Ignored("transaction marker")
    if "ddl" in payload or "tableChanges" in payload:
        return Ignored("schema change")
    return Reject(
        "NOT_AN_ENVELOPE",
        "the value has no op; for flattened records (ExtractNewRecordState) set `envelope: flattened`, for those of an outbox "
        "(EventRouter) `envelope: outbox`",
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


def _deletion(event: Event, record: Record, schema: RowSchema, context: DecodeContext) -> Decoded:
    """Only the key of a row that is gone matters."""
    table = event.table
    key = _key_in(event.row, table, schema) or _key_of(record.key, table, schema, context)
    if key is None:
        return no_key(table, schema.columns)
    new_key = _header_key(record, _NEW_KEY, table, schema, context)
    return Changes((Change(table.table, "d", event.sequence, key, new_key=new_key, commit_time_us=event.commit_us),))


def _upsert(event: Event, record: Record, connector: Any, schema: RowSchema, context: DecodeContext) -> Decoded:
    table, op, order, commit_us, row, *_ = event
    old_key = _header_key(record, _OLD_KEY, table, schema, context)
    missing = _not_sent(event, record, connector, schema, context.unavailable_value)
    known = {name: value for name, value in row.items() if name not in missing} if missing else row
    values, unfit = _canonical(known, table, schema)
    if bad_key := key_reject(table.table, table.keys, unfit):
        return bad_key
    key = key_text(table.keys, values)
    if key is None:
        return no_key(table, schema.columns)
    former_key = None if old_key else _former_key(event, key, record, schema, context)
    gone = (Change(table.table, "d", order, former_key, new_key=key, commit_time_us=commit_us),) if former_key else ()
    old_key = old_key or former_key
    unresolved = (*missing, *unfit)
    complete = not unresolved or old_key is not None
    change = Change(
        table.table, op, order, key, values, complete, unresolved, old_key, None, commit_us, schema.schema_id or None
    )
    return Changes((*gone, change), column_rejects(change, unfit))


def _former_key(event: Event, key: str, record: Record, schema: RowSchema, context: DecodeContext) -> str | None:
    """The key that a row had before an update which changed it; None where it did not, or where a delete came for the old one.

    The connector splits an update into a delete and an insert where its own key changes: the primary key, or
    `message.key.columns`. Where the record's key has the columns of `keys`, a different one in the old row was not sent.
    """
    before = None if event.before is None else _key_in(event.before, event.table, schema)
    if before is None or before == key:
        return None
    own = key_of(record.key, context) if record.key else None
    return None if isinstance(own, dict) and event.table.named(own).keys() == set(event.table.keys) else before


def _not_sent(event: Event, record: Record, connector: Any, schema: RowSchema, placeholder: str) -> tuple[str, ...]:
    """Columns whose value the log did not have: the announced ones that are missing among them.

    A null that may be unsent counts as NULL in an insert and a snapshot, which have the whole row, and where the old row
    shows that the log has whole rows (REPLICA IDENTITY FULL): by a value in that very column. Other databases log whole rows.
    """
    before = event.before or {}
    leaves_out = schema.unsure and connector == "postgresql"
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


def _key_of(key: bytes | None, table: TableContext, schema: RowSchema, context: DecodeContext) -> str | None:
    row = None if key is None else key_of(key, context)
    return _key_in(table.named(row), table, schema) if isinstance(row, dict) else None


def _header_key(
    record: Record, name: str, table: TableContext, schema: RowSchema, context: DecodeContext
) -> str | None:
    value = next((value for header, value in record.headers if header == name), None)
    return _key_of(value, table, schema, context) if value else None


def _commit_time_us(source: Mapping[str, Any]) -> int | None:
    micros = source.get("ts_us")
    if type(micros) is int:  # a bool is an int to Python
        return micros
    millis = source.get("ts_ms")
    require_exact(micros, millis)
    return millis * 1000 if type(millis) is int else None

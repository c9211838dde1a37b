"""Events of an outbox that Debezium's EventRouter routed: an aggregate is a row, and each event tells columns of it.

The record's key is the aggregate's id, the value the event's payload, alone or (with fields placed in the envelope) as `payload`
beside them. No record tells a place in the source's log: the stream's own order ranks, which is the outbox's for the events
of one aggregate as long as they stay in one partition. A record without a value is the aggregate's delete
(`route.tombstone.on.empty.payload`). The table is named after the topic.
"""

from __future__ import annotations

from typing import Any

from schemas.changes import Change, Changes, Decoded, Op, Reject
from schemas.records import Record
from transforms.context import DecodeContext, TableContext, key_text
from transforms.envelopes.connect import NO_SCHEMA, RowSchema, payload_of
from transforms.envelopes.event import other_table, unreadable
from transforms.envelopes.registry import is_framed
from transforms.positions.sequence import NO_SOURCE_POSITION, sequence, stream_position
from transforms.values import exact_json
from transforms.values.columns import column_rejects, converted, key_reject

_PREFIX = "outbox."
_PAYLOAD = "payload"


def decode(record: Record, context: DecodeContext) -> Decoded:
    """Decode one routed event; see `transforms.envelopes.decode.decode`."""
    name = record.stream if "." in record.stream else f"{_PREFIX}{record.stream}"
    table = context.table(name)
    if table is None:
        return other_table(name, context)
    try:
        order = sequence(0, NO_SOURCE_POSITION, stream_position(record.position))
    except ValueError:
        return Reject("NO_SEQUENCE", f"an event of {table.table} has no position in its stream", table.table)
    try:
        aggregate = _aggregate(record.key, context)
        row, schema = _row(record.value, context) if record.value else ({}, NO_SCHEMA)
    except (ValueError, RecursionError) as error:
        return unreadable(error)
    if aggregate is None or len(table.keys) != 1:
        return _no_aggregate(table)
    if row is None:
        message = f"the payload of an event of {table.table} is no JSON object: its fields are the row's columns"
        return Reject("OUTBOX_PAYLOAD", message, table.table)
    if table.renamed:
        row, schema = table.named(row), schema.renamed(table)
    row[table.keys[0]] = aggregate
    return _change(table, row, schema, order, "u" if record.value else "d")


def _change(table: TableContext, row: dict[str, Any], schema: RowSchema, order: str, op: Op) -> Decoded:
    values, unfit = converted(row, schema.converters, table.converters)
    if bad_key := key_reject(table.table, table.keys, unfit):
        return bad_key
    key = key_text(table.keys, values)
    if key is None:
        return _no_aggregate(table)
    if op == "d":
        return Changes((Change(table.table, op, order, key),))
    change = Change(table.table, op, order, key, values, unavailable=tuple(unfit), schema_id=schema.schema_id or None)
    return Changes((change,), column_rejects(change, unfit))


def _aggregate(key: bytes | None, context: DecodeContext) -> str | None:
    """The aggregate's id as text: converters write it bare, as JSON or framed."""
    if not key:
        return None
    value = payload_of(key, context)[0] if is_framed(key) or key[:1] in {b'"', b"{"} else key.decode()
    if isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    return str(value) if isinstance(value, (str, int)) else None


def _row(value: bytes, context: DecodeContext) -> tuple[dict[str, Any] | None, RowSchema]:
    """The columns of an event; None where its payload is no object."""
    document, schema = payload_of(value, context)
    if isinstance(document, dict) and isinstance(document.get(_PAYLOAD), (dict, str)):
        payload = _parsed(document.pop(_PAYLOAD))
        return (payload | document if isinstance(payload, dict) else None), NO_SCHEMA
    row = _parsed(document)
    return (row if isinstance(row, dict) else None), schema


def _parsed(document: Any) -> Any:
    """A payload that a converter wrote as text is JSON in it."""
    return exact_json.loads(document) if isinstance(document, str) else document


def _no_aggregate(table: TableContext) -> Reject:
    message = (
        f"an event of {table.table} has no aggregate's id: it is the record's key (table.field.event.key), and `keys` of the "
        f"table names one column for it"
    )
    return Reject("NO_KEY", message, table.table)

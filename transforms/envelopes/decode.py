"""From one stream record to what it means; the same pure functions for every reader (I6)."""

from __future__ import annotations

from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

import orjson

from schemas.changes import Changes, Decoded, Reject, SeenSchema
from schemas.records import Record
from transforms.context import DecodeContext, TableContext
from transforms.envelopes import debezium, dms, epochs, flattened, outbox, stored
from transforms.envelopes.connect import SCHEMA, key_of, payload_of
from transforms.envelopes.event import Event
from transforms.envelopes.placeholders import placeholder_texts
from transforms.values.columns import UNFIT, deep
from transforms.values.rules import ruled

MAX_VALUE_BYTES = 64 * 1024 * 1024
"""A record larger than this is rejected unread; brokers and Kinesis (10 MiB) stop well before."""
_DECODE = {"debezium": debezium.decode, "dms": dms.decode, "flattened": flattened.decode, "outbox": outbox.decode}
_EVENT = {"debezium": debezium.read_event, "dms": dms.read_event, "flattened": flattened.read_event}
"""Envelopes whose changes are read without their columns."""

type Coordinates = tuple[str, str, str, int | None, str, str | None, bool, int]
"""Table, operation, sequence, commit time (microseconds), key, the other key of a key change, whether an old key is hidden,
and how many values may have been cut at the capture's limit."""


def decode(record: Record, context: DecodeContext) -> Decoded:
    """Decode one record; never raises for its content.

    Deterministic: the same bytes and context give the same result, so a record can be decoded again at any time,
    by a better decoder too. Columns come under the rules of their table: hashed, masked or not at all.
    """
    if record.value is not None and len(record.value) > MAX_VALUE_BYTES:
        return Reject("RECORD_TOO_LARGE", f"the value has {len(record.value)} bytes; the limit is {MAX_VALUE_BYTES}")
    if any(name == stored.HEADER for name, _ in record.headers):
        return stored.reserved_header()
    try:
        if record.stored:
            return stored.decode(record, context)
        if record.stream == epochs.STREAM:
            return epochs.decode(record, context)
        meaning = _DECODE[context.envelope](record, context)
        return ruled(meaning, context) if context.ruled else meaning
    except UNFIT as error:
        return Reject(
            "NOT_AN_ENVELOPE", f"a part of the envelope has another type than it should: {type(error).__name__}"
        )


def seen_schema(record: Record, context: DecodeContext, order: str = "") -> SeenSchema | None:
    """What the schema of a record of that sequence announces, as a row of the `schemas` table; None where it has none."""
    meaning = decode(record, context)
    if not isinstance(meaning, Changes) or not record.value:
        return None
    table = meaning.changes[-1].table
    _, schema = payload_of(record.value, context)
    if not schema.schema_id:
        return None
    own = key_of(record.key, context) if record.key else None
    keys = tuple(own) if isinstance(own, dict) and own else context.tables[table].keys
    return SeenSchema(schema.schema_id, table, schema.columns, keys, order, schema.defaulted)


def coordinates(value: bytes, stream: str, position: str, context: DecodeContext) -> Coordinates | None:
    """Read a change without its columns, in a third of the time: what landing, which keeps the raw bytes, needs of it.

    Gives what `decode` gives for a record without the headers that decoding reads, or None where only `decode` can tell.
    orjson takes nothing that `exact_json` refuses, and gives equal text and equal integers of up to 64 bits; every other
    number is a float, and where one decides something `read_event` raises.
    """
    read_event = _EVENT.get(context.envelope)
    if read_event is None or len(value) > MAX_VALUE_BYTES:
        return None
    if value.startswith(SCHEMA):  # it has converters for the key
        return None
    try:
        event = read_event(orjson.loads(value), stream, position, context)
    except UNFIT:
        return None
    if not isinstance(event, Event) or event.table.has_converters or event.table.rules:
        return None
    table, op, sequence, commit_us, row, before, hides_old_key = event
    unavailable = placeholder_texts(context.unavailable_value)
    key = _plain_key(table, row, unavailable)
    old_key = key if before is None else _plain_key(table, row | before, unavailable)
    if key is None or old_key is None or deep(row):
        return None
    if old_key != key and context.envelope != "dms":
        return None  # the record's own key decides
    related = None if old_key == key else old_key
    return table.table, op, sequence, commit_us, key, related, hides_old_key, dms.at_limit(row, value, context)


def _plain_key(table: TableContext, row: Mapping[str, Any], unavailable: frozenset[str]) -> str | None:
    """The text of `transforms.context.key_text`, where every part is an integer or text."""
    parts = []
    for name, prefix in table.key_prefixes:
        value = row.get(name)
        if type(value) is int:
            parts.append(f"{prefix}{value}")
        elif type(value) is str and value not in unavailable:
            parts.append(prefix + quoted(value))
        else:
            return None
    return f"{{{','.join(parts)}}}"

"""AWS DMS's JSON (Kinesis and Kafka targets): data and control records."""

from __future__ import annotations

import datetime as dt
from typing import Any

from schemas.changes import Change, Changes, Decoded, Ignored, Op, Reject, SeenSchema
from schemas.records import Record
from transforms.context import DecodeContext, key_text
from transforms.envelopes.event import Event, bad_commit_time, no_key, other_table, require_exact, schema_id
from transforms.positions.dms import source_position
from transforms.positions.sequence import epoch_at, is_a_commit_time, sequence, stream_position
from transforms.values import exact_json
from transforms.values.columns import column_rejects, converted, key_reject
from transforms.values.types import dms_type

_OPS: dict[str, Op] = {"load": "r", "insert": "c", "update": "u", "delete": "d"}
"""From the operations of data records."""
BEFORE_IMAGE = "before-image"
"""The field name the rendered task settings ask for (BeforeImageSettings.FieldName)."""


def decode(record: Record, context: DecodeContext) -> Decoded:
    """Decode one DMS record; see `transforms.envelopes.decode.decode`."""
    if record.value is None:
        return Ignored("tombstone")
    try:
        document = exact_json.loads(record.value)
    except (ValueError, RecursionError) as error:
        return Reject("MALFORMED_JSON", f"the value is not JSON in UTF-8: {type(error).__name__}")
    event = read_event(document, record.stream, record.position, context)
    return _row_change(event) if isinstance(event, Event) else event


def read_event(document: Any, _stream: str, position: str, context: DecodeContext) -> Event | Decoded:
    """Read the change of a row from a parsed value; of any other value, the whole result."""
    metadata = document.get("metadata") if isinstance(document, dict) else None
    if not isinstance(metadata, dict) or "record-type" not in metadata:
        return Reject("NOT_AN_ENVELOPE", "the value has no metadata.record-type; is this DMS's JSON?")
    owner, table_name = metadata.get("schema-name"), metadata.get("table-name")
    require_exact(owner, table_name)
    name = f"{owner}.{table_name}"
    if metadata["record-type"] == "control":
        return _control(document, metadata, name, context)
    table = context.table(name)
    if table is None:
        return other_table(name, context)
    op, row = _OPS.get(str(metadata.get("operation"))), document.get("data")
    if metadata["record-type"] != "data" or op is None or not isinstance(row, dict):
        return Reject("NOT_AN_ENVELOPE", f"a record of {name} has an unknown operation or no data", name)
    load = op == "r"
    commit_us = _time_us(metadata.get("timestamp" if load else "commit-timestamp"))
    if not is_a_commit_time(commit_us):
        return bad_commit_time(table)
    try:
        source = source_position(metadata.get("stream-position"), full_load=load)
        order = sequence(epoch_at(context.epoch_starts_us, commit_us), source, stream_position(position))
    except ValueError:
        hint = "has no stream-position that can be ordered; set IncludeTransactionDetails on the endpoint"
        return Reject("NO_SEQUENCE", f"a {metadata.get('operation')} of {table.table} {hint}", table.table)
    image = document.get(BEFORE_IMAGE) if op == "u" else None
    before = image if isinstance(image, dict) else None
    return Event(table, op, order, commit_us, row, before, op == "u" and before is None)


def _control(document: dict[str, Any], metadata: dict[str, Any], table: str, context: DecodeContext) -> Decoded:
    """Count a control record; a create-table names the columns' types.

    A drop-table is never a deletion of rows: DMS drops and creates its target at every (re)load.
    """
    definition = (document.get("control") or {}).get("table-def") or {}
    columns = definition.get("columns")
    seen = None
    configured = context.table(table)
    if configured is not None and isinstance(columns, dict):
        types = {n: dms_type(c) for n, c in columns.items() if isinstance(c, dict)}
        order = f"{_time_us(metadata.get('timestamp')) or 0:020d}"
        seen = SeenSchema(schema_id(types), configured.table, types, tuple(definition.get("primary-key") or ()), order)
    return Ignored(f"control {metadata.get('operation')}", table, seen)


def _row_change(event: Event) -> Decoded:
    """One change, or two: a key change is an update, and only its before-image (BeforeImageSettings) has the old key."""
    table, op, order, commit_us, row, before, hides_old_key = event
    if table.renamed:
        row, before = table.named(row), before and table.named(before)
    row = row if op != "d" else {name: row[name] for name in table.keys if name in row}
    moved = {name: before[name] for name in table.keys if name in before} if before else {}
    converters = table.converters
    values, unfit = converted(row, converters)
    old, unfit_old = converted(moved, converters)
    bad_key = key_reject(table.table, table.keys, unfit | unfit_old) if unfit or unfit_old else None
    if bad_key:
        return bad_key
    key = key_text(table.keys, values)
    if key is None:
        return no_key(table)
    if op == "d":
        return Changes((Change(table.table, "d", order, key, commit_time_us=commit_us),))
    old_key = key_text(table.keys, values | old) if op == "u" else None
    old_key = old_key if old_key != key else None
    complete = op in {"c", "r"} and not unfit
    change = Change(
        table.table, op, order, key, values, complete, tuple(unfit), old_key, None, commit_us, None, hides_old_key
    )
    rejects = column_rejects(change, unfit) if unfit else ()
    if old_key is None:
        return Changes((change,), rejects)
    gone = Change(table.table, "d", order, old_key, new_key=key, commit_time_us=commit_us)
    return Changes((gone, change), rejects)


def _time_us(text: Any) -> int | None:
    """Read a time of a record's metadata, as microseconds since the epoch; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    utc = moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment
    return (utc - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)

"""AWS DMS's JSON (Kinesis and Kafka targets): data and control records."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from schemas.changes import Change, Changes, Decoded, Ignored, Op, Reject, SeenSchema
from transforms.context import key_text
from transforms.positions.sequence import (
    NO_SOURCE_POSITION,
    dms_postgresql_position,
    epoch_at,
    is_a_commit_time,
    sequence,
    stream_position,
)
from transforms.values import exact_json
from transforms.values.columns import column_rejects, converted, key_reject
from transforms.values.types import dms_type

if TYPE_CHECKING:
    from schemas.records import Record
    from transforms.context import DecodeContext, TableContext

OPS: dict[str, Op] = {"load": "r", "insert": "c", "update": "u", "delete": "d"}
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
    metadata = document.get("metadata") if isinstance(document, dict) else None
    if not isinstance(metadata, dict) or "record-type" not in metadata:
        return Reject("NOT_AN_ENVELOPE", "the value has no metadata.record-type; is this DMS's JSON?")
    table = f"{metadata.get('schema-name')}.{metadata.get('table-name')}"
    if metadata["record-type"] == "control":
        return _control(document, metadata, table, context)
    found = context.table(table)
    if found is None:
        if table in context.others:
            return Reject("OTHER_SOURCE", f"table {table} belongs to another source of this pipeline", table)
        return Ignored("table not configured", table)
    op, row = OPS.get(str(metadata.get("operation"))), document.get("data")
    if metadata["record-type"] != "data" or op is None or not isinstance(row, dict):
        return Reject("NOT_AN_ENVELOPE", f"a record of {table} has an unknown operation or no data", table)
    return _data(record, context, found, op, document, metadata)


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
        digest = hashlib.sha256(exact_json.dumps(types, sort_keys=True).encode()).hexdigest()[:16]
        seen = SeenSchema(digest, configured.table, types, tuple(definition.get("primary-key") or ()))
    return Ignored(f"control {metadata.get('operation')}", table, seen)


def _data(
    record: Record,
    context: DecodeContext,
    table: TableContext,
    op: Op,
    document: dict[str, Any],
    metadata: Mapping[str, Any],
) -> Decoded:
    load = op == "r"
    commit_us = time_us(metadata.get("timestamp" if load else "commit-timestamp"))
    position = metadata.get("stream-position")
    if not is_a_commit_time(commit_us):
        return Reject(
            "BAD_COMMIT_TIME", f"a record of {table.table} was committed outside the years 1 to 9999", table.table
        )
    try:
        source = NO_SOURCE_POSITION if load else dms_postgresql_position(str(position))
        order = sequence(epoch_at(context.epoch_starts_us, commit_us), source, stream_position(record.position))
    except ValueError:
        hint = "has no stream-position that can be ordered; set IncludeTransactionDetails on the endpoint"
        return Reject("NO_SEQUENCE", f"a {metadata.get('operation')} of {table.table} {hint}", table.table)
    return _row_change(document, table, op, order, commit_us)


def _row_change(document: dict[str, Any], table: TableContext, op: Op, order: str, commit_us: int | None) -> Decoded:
    """One change, or two: a key change is an update, and only its before-image (BeforeImageSettings) tells the old key."""
    row, before = document["data"], document.get(BEFORE_IMAGE)
    row = row if op != "d" else {name: row[name] for name in table.keys if name in row}
    moved = {name: before[name] for name in table.keys if name in before} if isinstance(before, dict) else {}
    converters = table.converters
    values, unfit = converted(row, converters)
    old, unfit_old = converted(moved, converters)
    bad_key = key_reject(table.table, table.keys, unfit | unfit_old) if unfit or unfit_old else None
    if bad_key:
        return bad_key
    key = key_text(table.keys, values)
    if key is None:
        hint = f"a record of {table.table} lacks a key column of {', '.join(table.keys)}"
        return Reject("NO_KEY", hint, table.table)
    if op == "d":
        return Changes((Change(table.table, "d", order, key, commit_time_us=commit_us),))
    old_key = key_text(table.keys, values | old) if op == "u" else None
    old_key = old_key if old_key != key else None
    complete = op in {"c", "r"} and not unfit
    told = (table.table, op, order, key, values, complete, tuple(unfit), old_key, None, commit_us)
    change = Change(*told, hides_old_key=op == "u" and not isinstance(before, dict))
    rejects = column_rejects(change, unfit) if unfit else ()
    if old_key is None:
        return Changes((change,), rejects)
    gone = Change(table.table, "d", order, old_key, new_key=key, commit_time_us=commit_us)
    return Changes((gone, change), rejects)


def time_us(text: Any) -> int | None:
    """Read a time of a record's metadata, as microseconds since the epoch; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    utc = moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment
    return (utc - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)

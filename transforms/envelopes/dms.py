"""AWS DMS's JSON (Kinesis and Kafka targets): data and control records."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from schemas.changes import Change, Changes, Decoded, Ignored, Op, Reject, SeenSchema
from schemas.records import Record
from transforms.context import DecodeContext, TableContext, key_text
from transforms.envelopes.event import Event, bad_commit_time, no_key, other_table, require_exact, schema_id
from transforms.positions.dms import source_position
from transforms.positions.sequence import (
    BY_STREAM,
    NO_SOURCE_POSITION,
    NoPositionError,
    epoch_at,
    is_a_commit_time,
    sequence,
    stream_position,
)
from transforms.values import exact_json
from transforms.values.columns import column_rejects, converted, key_reject
from transforms.values.encodings import ROUNDED, hexadecimal, lost_digits
from transforms.values.types import dms_type

_OPS: dict[str, Op] = {"load": "r", "insert": "c", "update": "u", "delete": "d"}
"""From the operations of data records."""
_TRUNCATE, _RENAME = "truncate-table", "rename-table"
_OLD = "bi_"
"""What AWS DMS puts before the name of a column with an old value, where a mapping rule says nothing else."""
_CONTROLS = frozenset({
    "create-table", "drop-table", _RENAME, "add-column", "drop-column", "rename-column", "change-columns",
    "column-type-change", _TRUNCATE,
})  # fmt: skip
"""Operations of control records: those that the guide lists, and the one it does not say what becomes of."""


def decode(record: Record, context: DecodeContext) -> Decoded:
    """Decode one DMS record; see `transforms.envelopes.decode.decode`."""
    if record.value is None:
        return Ignored("tombstone")
    try:
        document = exact_json.loads(record.value)
    except (ValueError, RecursionError) as error:
        return Reject("MALFORMED_JSON", f"the value is not JSON in UTF-8: {type(error).__name__}")
    event = read_event(document, record.stream, record.position, context)
    return _row_change(event, at_limit(event.row, record.value, context)) if isinstance(event, Event) else event


def read_event(document: Any, _stream: str, position: str, context: DecodeContext) -> Event | Decoded:
    """Read the change of a row from a parsed value; of any other value, the whole result."""
    metadata = document.get("metadata") if isinstance(document, dict) else None
    if not isinstance(metadata, dict) or "record-type" not in metadata:
        return Reject("NOT_AN_ENVELOPE", "the value has no metadata.record-type; is this DMS's JSON?")
    owner, table_name = metadata.get("schema-name"), metadata.get("table-name")
    require_exact(owner, table_name)
    name = f"{owner}.{table_name}"
    table = context.table(name)
    if metadata["record-type"] == "control":
        return _control(document, metadata, name, table, position, context)
    if table is None:
        return other_table(name, context)
    op, row = _OPS.get(str(metadata.get("operation"))), document.get("data")
    if metadata["record-type"] != "data" or op is None or not isinstance(row, dict):
        return Reject("NOT_AN_ENVELOPE", f"a record of {name} has an unknown operation or no data", name)
    commit_us = _commit_us(metadata)
    if not is_a_commit_time(commit_us):
        return bad_commit_time(table)
    try:
        order = _order(metadata, position, commit_us, context, full_load=op == "r")
    except ValueError as error:
        return _no_sequence(str(metadata.get("operation")), table, error)
    before = _before_image(document, row, context)
    _drop_old_values(row, table)
    if op != "u":
        return Event(table, op, order, commit_us, row)
    return Event(table, op, order, commit_us, row, before, before is None)


def _no_sequence(operation: str, table: TableContext, error: ValueError) -> Reject:
    why = (
        str(error)
        if isinstance(error, NoPositionError)
        else "its place in the stream, or its stream-position, is no number"
    )
    return Reject("NO_SEQUENCE", f"the {operation} of a row of {table.table}: {why}", table.table)


def _order(
    metadata: Mapping[str, Any], position: str, commit_us: int | None, context: DecodeContext, *, full_load: bool
) -> str:
    """The sequence of a record; raises ValueError where it has none.

    A full load has no position. Without transaction details neither has a change: then the stream's own position ranks.
    """
    if full_load:
        source = NO_SOURCE_POSITION
    elif metadata.get("stream-position") is None and metadata.get("commit-timestamp") is None:
        source = BY_STREAM
    else:
        source = source_position(metadata.get("stream-position"))
    return sequence(epoch_at(context.epoch_starts_us, commit_us), source, stream_position(position))


def _commit_us(metadata: Mapping[str, Any]) -> int | None:
    """When a change was committed, as far as the record has it; else when DMS wrote the record, which is not earlier."""
    commit_us = _time_us(metadata.get("commit-timestamp"))
    return _time_us(metadata.get("timestamp")) if commit_us is None else commit_us


def _before_image(document: Mapping[str, Any], row: dict[str, Any], context: DecodeContext) -> dict[str, Any] | None:
    """A row's old values, in a field of their own or in columns that a mapping rule added, which are taken out of the row."""
    field, affixes = context.before_image, context.before_image_affixes
    if affixes is None:
        image = document.get(field)
        return image if isinstance(image, dict) else None
    start, end = affixes
    least = len(start) + len(end)
    added = [name for name in row if len(name) > least and name.startswith(start) and name.endswith(end)]
    return {name[len(start) : len(name) - len(end)]: row.pop(name) for name in added} or None


def _drop_old_values(row: dict[str, Any], table: TableContext) -> None:
    """Take out old values of columns with a rule that a mapping rule added under its own prefix, and `before_image` missed."""
    for name in tuple(row) if table.rules else ():
        of_old = name.casefold().startswith(_OLD) and name not in table.keys and not table.rule_of(name)
        if of_old and table.rule_of(name[len(_OLD) :]):
            del row[name]


def _control(
    document: Mapping[str, Any],
    metadata: Mapping[str, Any],
    name: str,
    table: TableContext | None,
    position: str,
    context: DecodeContext,
) -> Decoded:
    """Count a control record; one with a table's definition names the columns' types.

    A drop-table is never a deletion of rows: DMS drops and creates its target at every (re)load.
    """
    operation = str(metadata.get("operation"))
    if operation not in _CONTROLS:
        known = f"a control record of {name} has an operation that is not known here"
        return Ignored("control", name) if table is None else Reject("NOT_AN_ENVELOPE", known, table.table)
    if table is not None and operation == _TRUNCATE:
        return _truncation(metadata, table, position, context)
    if table is not None and operation == _RENAME:
        message = f"{name} was renamed at the source: its changes come under another name, to be written under `tables`"
        return Reject("TABLE_RENAMED", message, table.table)
    control = document.get("control")
    definition = control.get("table-def") if isinstance(control, dict) else None
    if table is None or not isinstance(definition, dict) or not isinstance(columns := definition.get("columns"), dict):
        return Ignored(f"control {operation}", name)
    types = {column: dms_type(described) for column, described in columns.items() if isinstance(described, dict)}
    order = f"{_time_us(metadata.get('timestamp')) or 0:020d}"
    schema = SeenSchema(schema_id(types), table.table, types, tuple(definition.get("primary-key") or ()), order)
    return Ignored(f"control {operation}", name, schema)


def _truncation(metadata: Mapping[str, Any], table: TableContext, position: str, context: DecodeContext) -> Decoded:
    """A TRUNCATE that tells its place in the log. Control records go to a shard of their own, so the stream's tells nothing."""
    commit_us = _commit_us(metadata)
    try:
        source = source_position(metadata.get("stream-position"))
        order = sequence(epoch_at(context.epoch_starts_us, commit_us), source, stream_position(position))
    except ValueError:
        message = (
            f"{table.table} was truncated, and the record does not tell where in the log: which rows are gone is not known. "
            f"Reload the table, then run `ragstream epoch`"
        )
        return Reject("TRUNCATE_WITHOUT_PLACE", message, table.table)
    return Changes((Change(table.table, "t", order, "", commit_time_us=commit_us),))


def _row_change(event: Event, at_lob_limit: int) -> Decoded:
    """One change, or two: a key change is an update, and only its before-image has the old key."""
    table, op, order, commit_us, row, before, hides_old_key = event.renamed() if event.table.renamed else event
    row = row if op != "d" else {name: row[name] for name in table.keys if name in row}
    old_row = {name: before[name] for name in table.keys if name in before} if before else {}
    converters = table.converters | {name: hexadecimal for name, kind in table.columns.items() if kind == "bytes"}
    values, unfit = converted(row, converters)
    old, unfit_old = converted(old_row, converters)
    rounded = {name: _ROUNDED for name in table.keys if lost_digits(values.get(name)) or lost_digits(old.get(name))}
    if bad_key := key_reject(table.table, table.keys, unfit | unfit_old | rounded):
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
    rejects = column_rejects(change, unfit)
    if old_key is None:
        return Changes((change,), rejects, at_lob_limit)
    gone = Change(table.table, "d", order, old_key, new_key=key, commit_time_us=commit_us)
    return Changes((gone, change), rejects, at_lob_limit)


_ROUNDED = f"{ROUNDED}; set UseLargeIntegerValue on the endpoint"


def at_limit(row: Mapping[str, Any], value: bytes, context: DecodeContext) -> int:
    """How many of a row's values are as long as the task's LOB limit, and so may have been cut there.

    The limit counts bytes: of a CLOB one a character, of an NCLOB two (four, where a character needs them), of a BLOB, which is
    written in hexadecimal, half of the digits (AWS's guide, PostgreSQL as a source, LOBs).
    """
    limit = context.lob_limit
    if not limit or len(value) < limit // 4:
        return 0
    lengths = {limit, limit // 2, limit // 4, 2 * limit, 2 * limit + 2}
    texts = [text for text in row.values() if isinstance(text, str) and len(text) >= limit // 4]
    return sum(len(text) in lengths or len(text.encode("utf-8", "surrogatepass")) == limit for text in texts)


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

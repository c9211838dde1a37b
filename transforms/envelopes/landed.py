"""The plain shapes of both envelopes, read for landing alone: what `decode` says of them, at a third of the cost.

Landing keeps the raw bytes and needs a change's coordinates and key, not its values. A reader here parses with orjson and
answers only what it is sure of: where orjson refuses a document, or a number, a name or a key is not plain, it answers
None and the full decode decides. orjson takes nothing that `exact_json` refuses, and gives equal text and equal integers
of up to 64 bits; every other number is a float, and no float is ever read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Any

import orjson

from transforms.envelopes import dms
from transforms.envelopes.placeholders import placeholder_texts
from transforms.positions.connectors import source_position
from transforms.positions.sequence import (
    NO_SOURCE_POSITION,
    dms_postgresql_position,
    epoch_at,
    is_a_commit_time,
    sequence,
    stream_position,
)
from transforms.values import exact_json
from transforms.values.columns import MAX_DEPTH, deep

if TYPE_CHECKING:
    from transforms.context import DecodeContext, TableContext

type Coordinates = tuple[str, str, str, int | None, str, str | None, bool]
"""Table, operation, sequence, commit time (microseconds), key, the other key of a key change, whether an old key is hidden."""
type Reader = Callable[[bytes, str], Coordinates | None]
"""From a record's value and its position in the stream."""
type _Keys = tuple[tuple[str, str], ...]
"""A key column's name, and the same as it stands in the key's text."""

_DEBEZIUM_OPS = frozenset("cudr")
_INT_OR_NONE = (int, type(None))
_NO_TEXTS: frozenset[str] = frozenset()


def plain_reader(context: DecodeContext) -> Reader:
    """Make the reader of a source's plain records without telling headers.

    What it answers is what `transforms.envelopes.decode.decode` answers for the same record; None is no answer.
    """
    tables = {name: keys for name, table in context.tables.items() if (keys := _plain_keys(name, table)) is not None}
    if context.envelope == "debezium":
        return partial(_debezium, context, tables, placeholder_texts(context.unavailable_value))
    return partial(_dms, context, tables)


def _plain_keys(name: str, table: TableContext) -> _Keys | None:
    """None where the owner declared a type that converts values: a value that does not fit is a reject."""
    if name != table.table or len(set(table.keys)) < len(table.keys) or table.converters:
        return None
    return tuple((key, f"{exact_json.dumps(key)}:") for key in table.keys)


def _debezium(
    context: DecodeContext, tables: Mapping[str, _Keys], unavailable: frozenset[str], value: bytes, position: str
) -> Coordinates | None:
    document = None if value.startswith(b'{"schema":') else _document(value)
    source = document.get("source") if document else None
    if not document or type(source) is not dict:
        return None
    op, table = document.get("op"), source.get("table")
    owner = source.get("schema")
    owner = source.get("db") if owner is None or owner == "" else owner
    if type(op) is not str or op not in _DEBEZIUM_OPS or type(owner) is not str or type(table) is not str:
        return None
    name = f"{owner}.{table}"
    keys = tables.get(name)
    row = document.get("before" if op == "d" else "after")
    if keys is None or type(row) is not dict:
        return None
    key = _key(keys, row, unavailable)
    at = _debezium_position(source)
    commit_us = source.get("ts_us")
    if commit_us is None:
        millis = source.get("ts_ms")
        commit_us = millis * 1000 if type(millis) is int else millis
    if key is None or at is None or type(commit_us) not in _INT_OR_NONE or _maybe_deep(value, row):
        return None
    order = _sequence_at(context, commit_us, at, position)
    return (name, op, order, commit_us, key, None, False) if order else None


def _debezium_position(source: Mapping[str, Any]) -> str | None:
    try:
        return source_position(source)
    except ValueError:
        return None


def _dms(context: DecodeContext, tables: Mapping[str, _Keys], value: bytes, position: str) -> Coordinates | None:
    document = _document(value)
    metadata = document.get("metadata") if document else None
    if not document or type(metadata) is not dict or metadata.get("record-type") != "data":
        return None
    owner, table, operation = (metadata.get(n) for n in ("schema-name", "table-name", "operation"))
    if type(owner) is not str or type(table) is not str or type(operation) is not str:
        return None
    name = f"{owner}.{table}"
    keys, op, row = tables.get(name), dms.OPS.get(operation), document.get("data")
    if keys is None or op is None or type(row) is not dict:
        return None
    before = document.get(dms.BEFORE_IMAGE) if op == "u" else None
    key = _key(keys, row, _NO_TEXTS)
    old = _key(keys, row | before, _NO_TEXTS) if type(before) is dict else key
    at = NO_SOURCE_POSITION if op == "r" else _dms_position(metadata.get("stream-position"))
    if key is None or old is None or at is None or _maybe_deep(value, row):
        return None
    commit_us = dms.time_us(metadata.get("timestamp" if op == "r" else "commit-timestamp"))
    order = _sequence_at(context, commit_us, at, position)
    hides = op == "u" and type(before) is not dict
    return (name, op, order, commit_us, key, None if old == key else old, hides) if order else None


def _dms_position(text: Any) -> str | None:
    try:
        return dms_postgresql_position(text) if type(text) is str else None
    except ValueError:
        return None


def _document(value: bytes) -> dict[str, Any] | None:
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    return document if type(document) is dict else None


def _maybe_deep(value: bytes, row: Mapping[str, Any]) -> bool:
    return value.count(b"[") + value.count(b"{") > MAX_DEPTH and bool(deep(row))


def _sequence_at(context: DecodeContext, commit_us: int | None, source: str, position: str) -> str | None:
    if not is_a_commit_time(commit_us):
        return None
    try:
        return sequence(epoch_at(context.epoch_starts_us, commit_us), source, stream_position(position))
    except ValueError:
        return None


def _key(keys: _Keys, row: Mapping[str, Any], unavailable: frozenset[str]) -> str | None:
    """The text of `transforms.context.key_text`, where every part is an integer or text."""
    parts = []
    for name, head in keys:
        value = row.get(name)
        if type(value) is int:
            parts.append(f"{head}{value}")
        elif type(value) is str and value not in unavailable:
            parts.append(head + quoted(value))
        else:
            return None
    return f"{{{','.join(parts)}}}"

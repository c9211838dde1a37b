"""Rows that Debezium's ExtractNewRecordState flattened, with what its `add.fields` tells of their order.

A flattened record is a row and nothing else: operation, table and place in the log come as fields `__op`, `__source_sequence` and
so on, or it cannot be ordered. From these the envelope is put together again and decoded as Debezium's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.changes import Decoded, Reject
from schemas.records import Record
from transforms.context import DecodeContext
from transforms.envelopes import debezium
from transforms.envelopes.connect import is_metadata, payload_of
from transforms.envelopes.event import Event, unreadable

_BINLOG = ("source.connector", "source.db", "source.table", "source.ts_us", "source.file", "source.pos", "source.row")
_LOCATED = ("source.connector", "source.db", "source.schema", "source.table", "source.ts_us")
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "postgresql": ("source.connector", "source.schema", "source.table", "source.ts_us", "source.sequence"),
    "mysql": _BINLOG,
    "mariadb": _BINLOG,
    "sqlserver": (*_LOCATED, "source.commit_lsn", "source.change_lsn", "source.event_serial_no"),
    "oracle": (
        *_LOCATED, "source.snapshot", "source.scn", "source.commit_scn", "source.txSeq", "source.rs_id", "source.ssn",
        "source.lcr_position",
    ),
}  # fmt: skip
"""By connector: the `add.fields` that tell all that order and names need (`transforms.positions`)."""
_PLACES: Mapping[str, frozenset[str]] = {
    "postgresql": frozenset({"sequence"}),
    "mysql": frozenset({"file", "pos", "row"}),
    "mariadb": frozenset({"file", "pos", "row"}),
    "sqlserver": frozenset({"commit_lsn", "change_lsn", "event_serial_no"}),
    "oracle": frozenset({"scn", "commit_scn"}),
}
"""By connector: the fields without which an order could be wrong, null or not. MySQL's and MariaDB's tell the same place."""
_OF_ENVELOPE = frozenset({"__op", "__deleted", "__ts_ms", "__ts_us", "__ts_ns"})


def decode(record: Record, context: DecodeContext) -> Decoded:
    """Decode one flattened record; see `transforms.envelopes.decode.decode`."""
    if not record.value:
        message = (
            "a record without a value: a delete that does not tell its place in the log, or the tombstone behind one that does; "
            "set delete.tombstone.handling.mode=rewrite"
        )
        return Reject("DELETE_WITHOUT_ORDER", message)
    try:
        payload, schema = payload_of(record.value, context)
    except (ValueError, RecursionError) as error:
        return unreadable(error)
    envelope = _envelope(payload, record.stream, context)
    return debezium.decode_payload(record, envelope, schema, context) if isinstance(envelope, dict) else envelope


def read_event(payload: Any, stream: str, position: str, context: DecodeContext) -> Event | Decoded:
    """Read the change of a row from a parsed payload; of any other payload, the whole result."""
    envelope = _envelope(payload, stream, context)
    return debezium.read_event(envelope, stream, position, context) if isinstance(envelope, dict) else envelope


def _envelope(payload: Any, stream: str, context: DecodeContext) -> dict[str, Any] | Decoded:
    """The envelope that a row was taken out of, as far as its fields tell; heartbeats and markers come as they are."""
    if not isinstance(payload, dict):
        return debezium.without_op(payload)
    added = {name for name in payload if is_metadata(name)}
    source = {_source_name(name): payload[name] for name in added - _OF_ENVELOPE}
    connector = source.get("connector") or next((name for name in _PLACES if _has_place(source, name)), None)
    op = "d" if payload.get("__deleted") in {"true", True} else payload.get("__op")
    if op not in {"c", "u", "r", "d"}:
        other = debezium.without_op(payload)
        return _unordered("its operation (__op)", connector) if isinstance(other, Reject) else other
    if connector is None or not _PLACES.get(connector, frozenset()) <= source.keys():
        return _unordered("its place in the log", connector)
    if context.epoch_starts_us and not source.keys() & {"ts_us", "ts_ms"}:
        return _unordered("its commit time, by which `epochs` order it", connector)
    if source.get("table") is None:
        source |= _table_fields(stream, connector, context)
    row = {name: value for name, value in payload.items() if name not in added}
    return {"op": op, "source": source | {"connector": connector}, "before" if op == "d" else "after": row}


def _source_name(name: str) -> str:
    """The field of `source` that `add.fields` names with its struct or without: `source.table`, or `table` alone."""
    return name.removeprefix("__").removeprefix("source_")


def _has_place(source: Mapping[str, Any], connector: str) -> bool:
    place = _PLACES[connector]
    return place <= source.keys() and any(source[name] is not None for name in place)


def _unordered(lacks: str, connector: Any) -> Reject:
    name = connector if isinstance(connector, str) and connector in _FIELDS else "postgresql"
    message = (
        f"a flattened record does not tell {lacks}: on ExtractNewRecordState set add.fields=op,{','.join(_FIELDS[name])} "
        f"(for {name}) and delete.tombstone.handling.mode=rewrite, and leave add.fields.prefix out"
    )
    return Reject("FLATTENED_WITHOUT_ORDER", message)


def _table_fields(stream: str, connector: str, context: DecodeContext) -> dict[str, str]:
    """The fields of `source` that name a table, by the topic: `PREFIX.schema.table`; none for a topic of no configured table."""
    tables = [name for name in context.tables if stream == name or stream.endswith(f".{name}")]
    owner, _, name = max(tables, key=len, default="").rpartition(".")
    if connector in {"mysql", "mariadb"}:
        return {"db": owner, "table": name}
    database, _, schema = owner.rpartition(".")
    return {"schema": schema, "table": name} | ({"db": database} if database else {})

"""A toy envelope: `{"toy": TABLE, "op": OPERATION, "at": POSITION, "row": {…}}`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from schemas.changes import Change, Changes, Decoded, Reject
from transforms.context import key_text
from transforms.envelopes.event import Event, no_key, other_table
from transforms.positions.sequence import position_of, sequence, stream_position
from transforms.values import exact_json

if TYPE_CHECKING:
    from schemas.records import Record
    from transforms.context import DecodeContext


def decode(record: Record, context: DecodeContext) -> Decoded:
    """Decode one record."""
    event = read_event(exact_json.loads(record.value or b"null"), record.stream, record.position, context)
    if not isinstance(event, Event):
        return event
    key = key_text(event.table.keys, event.row)
    if key is None:
        return no_key(event.table)
    change = Change(event.table.table, event.op, event.sequence, key, event.row, complete=True)
    return Changes((change,))


def read_event(document: Any, _stream: str, position: str, context: DecodeContext) -> Event | Decoded:
    """Read the change of a row from a parsed value."""
    if not isinstance(document, dict) or "toy" not in document:
        return Reject("NOT_AN_ENVELOPE", "the value is no toy")
    table = context.table(document["toy"])
    if table is None:
        return other_table(document["toy"], context)
    order = sequence(0, position_of(document["at"], 0, 0), stream_position(position))
    return Event(table, document["op"], order, None, document["row"])

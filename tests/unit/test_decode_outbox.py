"""Events of an outbox, as the EventRouter writes them through each converter."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.history.current import TableFold, row_of
from schemas.changes import Changes, Decoded, Ignored, Reject
from schemas.records import Record
from tests.recorded import compact
from tests.registered import Known, encoded, framed
from transforms.context import DecodeContext, TableContext
from transforms.envelopes.decode import coordinates, decode, seen_schema
from transforms.envelopes.registry import RegisteredSchema

TOPIC = "outbox.event.order"
CONTEXT = DecodeContext(
    "outbox",
    {
        TOPIC: TableContext(TOPIC, ("id",), {"total": "decimal(10,2)"}),
        "outbox.plain": TableContext("outbox.plain", ("id",)),
    },
)
PAYLOAD = '{"total":1.50,"state":"open"}'


def event(value: bytes | None, key: bytes | None = b"42", offset: int = 0, topic: str = TOPIC) -> Record:
    return Record(topic, "0", str(offset), key, value, (("id", b"uuid"),), 1_790_000_000_000 + offset)


def changed(record: Record, context: DecodeContext = CONTEXT) -> dict[str, Any]:
    meaning = decode(record, context)
    assert isinstance(meaning, Changes), meaning
    (change,) = meaning.changes
    assert coordinates(record.value or b"", record.stream, record.position, context) is None
    return {"key": change.key, "op": change.op, **change.columns}


ROW = {"key": '{"id":"42"}', "op": "u", "id": "42", "total": Decimal("1.50"), "state": "open"}


def with_schema(payload: Any) -> bytes | None:
    return compact({"schema": {"type": "string", "optional": False}, "payload": payload})


@pytest.mark.parametrize("key", [b"42", b'"42"', with_schema("42"), with_schema(42), b'{"id":"42"}'])
@pytest.mark.parametrize(
    "value",
    [
        PAYLOAD.encode(),
        json.dumps(PAYLOAD).encode(),
        with_schema(PAYLOAD),
        b'{"schema":{},"payload":%s}' % PAYLOAD.encode(),
    ],
)
def test_an_event_is_read_however_key_and_payload_were_converted(key: bytes, value: bytes) -> None:
    assert changed(event(value, key)) == ROW


def test_fields_in_the_envelope_are_columns_beside_the_payload() -> None:
    beside = {"payload": PAYLOAD, "eventType": "OrderCreated"}
    assert changed(event(compact(beside))) == ROW | {"eventType": "OrderCreated"}
    expanded = b'{"payload":%s,"eventType":"OrderCreated"}' % PAYLOAD.encode()
    assert changed(event(expanded)) == ROW | {"eventType": "OrderCreated"}


def test_a_payload_in_avro_brings_its_types() -> None:
    registry = Known("glue")
    schema = {
        "type": "record",
        "name": "Order",
        "fields": [{"name": "day", "type": {"type": "int", "logicalType": "date"}}],
    }
    plain = {"type": "record", "name": "Order", "fields": [{"name": "day", "type": "int"}]}
    name = registry.register(RegisteredSchema("AVRO", json.dumps(schema)))
    record = event(framed("glue", name, encoded(plain, {"day": 19_782}), compressed=True))
    context = DecodeContext("outbox", CONTEXT.tables, registry=registry)
    assert changed(record, context) == {"key": '{"id":"42"}', "op": "u", "id": "42", "day": "2024-02-29"}
    announced = seen_schema(record, context)
    assert announced is not None
    assert dict(announced.columns) == {"day": "date"}


def test_a_topic_without_a_dot_is_a_table_of_the_outbox() -> None:
    assert changed(event(b'{"a":1}', topic="plain"))["a"] == 1
    assert decode(event(b'{"a":1}', topic="other"), CONTEXT) == Ignored("table not configured", "outbox.other")


def test_renamed_columns_of_a_payload_have_the_names_that_are_kept() -> None:
    table = TableContext(TOPIC, ("id",), {"amount": "decimal(10,2)"}, renamed={"total": "amount", "order": "id"})
    expected = {"key": '{"id":"42"}', "op": "u", "id": "42", "amount": Decimal("1.50"), "state": "open"}
    assert changed(event(PAYLOAD.encode()), DecodeContext("outbox", {TOPIC: table})) == expected


@pytest.mark.parametrize(
    ("record", "condition"),
    [
        (event(PAYLOAD.encode(), None), "NO_KEY"),
        (event(PAYLOAD.encode(), b'{"a":1,"b":2}'), "NO_KEY"),
        (event(b"[1]"), "OUTBOX_PAYLOAD"),
        (event(b'"[1]"'), "OUTBOX_PAYLOAD"),
        (event(b"{not json"), "MALFORMED_JSON"),
        (event(b"\0\0\0\0\7x"), "REGISTRY_FRAMED"),
        (event(PAYLOAD.encode(), b"\0\0\0\0\7x"), "REGISTRY_FRAMED"),
    ],
)
def test_what_names_no_row_or_has_no_columns_is_a_reject(record: Record, condition: str) -> None:
    meaning = decode(record, CONTEXT)
    assert isinstance(meaning, Reject)
    assert meaning.condition == condition


def test_a_table_with_two_keys_has_no_aggregate() -> None:
    context = DecodeContext("outbox", {TOPIC: TableContext(TOPIC, ("id", "tenant"))})
    meaning = decode(event(PAYLOAD.encode()), context)
    assert isinstance(meaning, Reject)
    assert "one column" in meaning.message


@given(st.permutations(range(6)))
def test_the_streams_order_decides_whatever_order_events_are_read_in(order: list[int]) -> None:
    events = [
        event(b'{"state":"open","total":1}', offset=0), event(b'{"state":"paid"}', offset=1), event(None, offset=2),
        event(b'{"state":"new"}', offset=3), event(b'{"total":2.5}', offset=4), event(None, b"43", offset=5),
    ]  # fmt: skip
    fold = TableFold()
    for place in (*order, *order):
        meaning: Decoded = decode(events[place], CONTEXT)
        assert isinstance(meaning, Changes)
        for change in meaning.changes:
            fold.add(change)
    (state,) = fold.live().values()
    assert row_of(state, ["id", "state", "total"], {}) == {"id": "42", "state": "new", "total": Decimal("2.5")}

"""Landing's short way through a record says what the full decode says, in every column and every count."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lake.landing.decoding
import transforms.envelopes.decode
from lake.landing.decoding import DECODED_HEADERS, Tally, decoded
from schemas.records import Record
from tests.recorded import CONTEXT, FIXTURES, records
from transforms.context import DecodeContext, TableContext
from transforms.envelopes.decode import coordinates

HEADERS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
TABLES = {
    "inv.items": TableContext("inv.items", ("id",)),
    "inv.lines": TableContext("inv.lines", ("order_id", 'line "№"'), {"note": "text"}),
    "inv.typed": TableContext("inv.typed", ("id",), {"id": "bigint"}),
}
DEBEZIUM = DecodeContext("debezium", TABLES, frozenset({"inv.other"}), (2_000_000,))
DMS = DecodeContext("dms", TABLES, frozenset({"inv.other"}), (2_000_000,))

type Node = str | list[tuple[str, Node]]
"""JSON before it is written: a value as text, or an object with its names in order, which may repeat."""

ROW: Node = [
    ("id", "7"), ("order_id", '"o-1"'), ('line "№"', "3"), ("note", '"é\\u0000"'), ("amount", "1.10"), ("tags", "[1,{}]"),
]  # fmt: skip
SOURCE: Node = [
    ("schema", '"inv"'), ("db", '"shop"'), ("table", '"items"'), ("lsn", "12"), ("sequence", r'"[\"10\",\"12\"]"'),
    ("ts_ms", "1800000000000"), ("ts_us", "1800000000000001"), ("snapshot", '"false"'),
]  # fmt: skip
DEBEZIUM_EVENT: Node = [("op", '"c"'), ("before", ROW), ("after", ROW), ("source", SOURCE), ("transaction", "null")]
DMS_EVENT: Node = [
    ("data", ROW),
    ("before-image", [("id", "6")]),
    (
        "metadata",
        [
            ("record-type", '"data"'), ("operation", '"update"'), ("schema-name", '"inv"'), ("table-name", '"items"'),
            ("timestamp", '"2026-03-01T10:00:01.123456Z"'), ("commit-timestamp", '"2026-03-01T10:00:01Z"'),
            ("stream-position", '"00000002/7C007328.2.00000002/7C007328"'),
        ],
    ),
]  # fmt: skip
ODD = (
    "0", "-0", "-1", "1.0", "1.10", "1.1", "1e400", "1e-400", "1E5", "-0.0", "0e9999999999999999999", "1e9999999999999999999",
    "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616", "12345678901234567890123",
    "9" * 305, "9" * 4400, "NaN", "Infinity", "-Infinity", "Inf", "01", "true", "false", "null", "{}", "[]", "", '""',
    r'"\ud800"', r'"\ud83d\ude00"', r'"\u0000"', '"\x00"', '"\x7f"', '"\u2028"', '"\ufeff"', "'a'", "[" * 1100 + "]" * 1100,
    "[" * 100 + "]" * 100, "[" * 101 + "]" * 101, '{"a":' * 5000 + "1" + "}" * 5000,
    "-62135596800000001", "253402300800000000", "-5", '"mysql"', '"sqlserver"', '"binlog.000001"',
    "[" * 30_000 + "]" * 30_000, '"__debezium_unavailable_value"', '["__debezium_unavailable_value"]', '"c"', '"u"', '"d"',
    '"r"', '"t"', '"m"', '"x"', '"inv"', '"items"', '"lines"', '"typed"', '"other"', '"insert"', '"load"', '"delete"',
    '"control"', r'"[null,\"5\"]"', r'"[\"5\",null]"', '"[null,null]"', r'"[\"\u0663\",\" 4 \"]"', '"[1,2]"', '"[1,2,3]"',
    r'"[\"99999999999999999999\",\"1\"]"', '"2026-03-01"', '"9999-12-31T23:59:59.999999"', '"0001-01-01T00:00:00+14:00"',
    '{"id":1,"id":2}', '{"schema":1,"payload":2}', '{"id":null}',
)  # fmt: skip
NAMES = (
    "id", "schema", "db", "payload", "op", "ts_us", "lsn", "sequence", "source", "order_id", "before-image", "x", "connector",
    "file", "pos", "row",
)  # fmt: skip

leaves = st.one_of(
    st.sampled_from(ODD),
    st.text().map(json.dumps),
    st.text().map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.integers().map(str),
    st.floats().map(json.dumps),
)
edits = st.lists(
    st.tuples(st.sampled_from(("replace", "drop", "repeat", "add")), st.integers(0), st.sampled_from(NAMES), leaves),
    max_size=4,
)
scratches = st.lists(st.tuples(st.integers(0), st.binary(max_size=2)), max_size=1)


def objects(node: Node) -> list[list[tuple[str, Node]]]:
    return [] if isinstance(node, str) else [node, *(o for _, child in node for o in objects(child))]


def copied(node: Node) -> Node:
    return node if isinstance(node, str) else [(name, copied(child)) for name, child in node]


def edited(node: Node, changes: Sequence[tuple[str, int, str, str]]) -> Node:
    node = copied(node)
    for what, number, name, leaf in changes:
        places = [(o, i) for o in objects(node) for i in range(len(o))]
        if not places:
            continue
        place, i = places[number % len(places)]
        if what == "replace":
            place[i] = (place[i][0], leaf)
        elif what == "drop":
            del place[i]
        else:
            place.append((place[i][0] if what == "repeat" else name, leaf))
    return node


def written(node: Node) -> str:
    if isinstance(node, str):
        return node
    return "{" + ",".join(f"{json.dumps(name)}:{written(child)}" for name, child in node) + "}"


def scratched(value: bytes, places: Sequence[tuple[int, bytes]]) -> bytes:
    for number, piece in places:
        at = number % (len(value) + 1)
        value = value[:at] + piece + value[at + 1 :]
    return value


def columns(read: Sequence[Record]) -> list[pa.Array[Any]]:
    kinds = (pa.string(), pa.string(), pa.string(), pa.binary(), pa.binary())
    plain = [pa.array([r[i] for r in read], kind) for i, kind in enumerate(kinds)]
    headers = [[{"key": k, "value": v} for k, v in r.headers] or None for r in read]
    return [*plain, pa.array(headers, HEADERS)]


def same_both_ways(read: Sequence[Record], context: DecodeContext) -> tuple[list[dict[str, Any]], Tally]:
    short = decoded(columns(read), context)
    with patch.object(lake.landing.decoding, "coordinates", lambda *_: None):
        full = decoded(columns(read), context)
    assert short.records.equals(full.records)
    assert short.unfit.equals(full.unfit)
    assert short.tally == full.tally
    return pa.Table.from_struct_array(short.records).to_pylist(), short.tally


def answered(read: Sequence[Record], context: DecodeContext) -> int:
    return sum(r.value is not None and coordinates(r.value, r.stream, r.position, context) is not None for r in read)


@pytest.mark.parametrize("name", sorted(path.stem for path in FIXTURES.glob("*.jsonl")))
def test_every_recorded_event_lands_alike(name: str) -> None:
    read = list(records(name))
    rows, _ = same_both_ways(read, CONTEXT)
    landed = sum(row["_op"] is not None for row in rows)
    if "schemas" not in name:
        assert answered(read, CONTEXT) > 0.8 * landed


@settings(max_examples=500, deadline=None)
@given(changes=edits, scratch=scratches, position=st.sampled_from(("3", "9" * 56, "5:2", " 7", "x", "9" * 70)))
@pytest.mark.parametrize(("event", "context"), [(DEBEZIUM_EVENT, DEBEZIUM), (DMS_EVENT, DMS)], ids=["debezium", "dms"])
def test_whatever_an_envelope_holds_it_lands_alike(
    event: Node,
    context: DecodeContext,
    changes: Sequence[tuple[str, int, str, str]],
    scratch: Sequence[tuple[int, bytes]],
    position: str,
) -> None:
    value = scratched(written(edited(event, changes)).encode("utf-8", "surrogatepass"), scratch)
    same_both_ways([Record("t", "0", position, b'{"id":7}', value)], context)


@pytest.mark.parametrize(("event", "context"), [(DEBEZIUM_EVENT, DEBEZIUM), (DMS_EVENT, DMS)], ids=["debezium", "dms"])
@pytest.mark.parametrize("leaf", ODD)
def test_each_odd_value_lands_alike_wherever_it_stands(event: Node, context: DecodeContext, leaf: str) -> None:
    places = sum(len(o) for o in objects(event))
    values = [written(edited(event, [(what, i, "", leaf)])) for what in ("replace", "repeat") for i in range(places)]
    same_both_ways([Record("t", "0", str(i), b'{"id":7}', v.encode()) for i, v in enumerate(values)], context)


@pytest.mark.parametrize(("event", "context"), [(DEBEZIUM_EVENT, DEBEZIUM), (DMS_EVENT, DMS)], ids=["debezium", "dms"])
def test_the_plain_event_takes_the_short_way(event: Node, context: DecodeContext) -> None:
    read = [Record("t", "0", "3", None, written(event).encode())]
    assert answered(read, context) == 1
    ((row,), tally) = same_both_ways(read, context)
    assert (row["_table"], row["_key"], tally.landed.total()) == ("inv.items", '{"id":7}', 1)
    assert row["_related_key"] == ('{"id":6}' if context is DMS else None)


@pytest.mark.parametrize("header", DECODED_HEADERS)
def test_a_telling_header_takes_the_long_way(header: str) -> None:
    read = [Record("t", "0", "3", None, written(DEBEZIUM_EVENT).encode(), ((header, b'{"id":1}'),))]
    same_both_ways(read * 300, DEBEZIUM)


def test_a_number_no_decimal_holds_is_landed() -> None:
    value = written(edited(DEBEZIUM_EVENT, [("add", 0, "x", "0e9999999999999999999")])).encode()
    _, tally = same_both_ways([Record("t", "0", "3", None, value)], DEBEZIUM)
    assert tally.landed.total() == 1


def test_a_record_that_is_too_large_is_rejected_both_ways() -> None:
    with patch.object(transforms.envelopes.decode, "MAX_VALUE_BYTES", 10):
        ((row,), _) = same_both_ways([Record("t", "0", "3", None, written(DEBEZIUM_EVENT).encode())], DEBEZIUM)
    assert row["condition"] == "RECORD_TOO_LARGE"


def test_an_empty_batch_has_no_rows() -> None:
    rows, tally = same_both_ways([], DEBEZIUM)
    assert (rows, tally.records) == ([], 0)

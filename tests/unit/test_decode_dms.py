"""DMS's records decode to what they mean."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from schemas.changes import Changes, Ignored, Reject
from schemas.records import Record
from tests.recorded import compact
from transforms.context import DecodeContext, TableContext
from transforms.envelopes.decode import decode
from transforms.values.types import converter

CONTEXT = DecodeContext("dms", {"public.docs": TableContext("public.docs", ("id",))})
POSITION = "00000002/7C007328.2.00000002/7C007328"


def record(value: Any, position: str = "49590338271490256608559692538361571095921575989136588898") -> Record:
    data = value if isinstance(value, bytes) else compact(value)
    return Record("desk", "shardId-000000000000", position, b"public.docs", data)


def event(operation: str, data: Any, **metadata: Any) -> dict[str, Any]:
    common = {"timestamp": "2026-03-01T10:00:01.123456Z", "record-type": "data", "operation": operation}
    cdc = {"stream-position": POSITION, "commit-timestamp": "2026-03-01T10:00:01.000000Z", "transaction-id": 1140}
    names = {"schema-name": "public", "table-name": "docs", "partition-key-type": "schema-table"}
    return {"data": data, "metadata": common | names | ({} if operation == "load" else cdc) | metadata}


def changes(value: Any, **fields: Any) -> Changes:
    decoded = decode(record(value, **fields), CONTEXT)
    assert isinstance(decoded, Changes), decoded
    return decoded


@pytest.mark.parametrize(("operation", "op"), [("load", "r"), ("insert", "c"), ("update", "u"), ("delete", "d")])
def test_operations(operation: str, op: str) -> None:
    (change,) = changes(event(operation, {"id": 42, "title": "x"})).changes
    assert (change.op, change.key, change.table) == (op, '{"id":42}', "public.docs")
    assert change.complete == (operation in {"load", "insert"})


@pytest.mark.covers("postgresql", "dms", "snapshot", "documented")
def test_a_loaded_row_ranks_below_every_change() -> None:
    (loaded,) = changes(event("load", {"id": 1})).changes
    (updated,) = changes(event("update", {"id": 1}), position="1").changes
    assert loaded.sequence < updated.sequence
    assert loaded.commit_time_us == 1772359201123456


def test_stream_positions_compare_as_numbers() -> None:
    (second,) = changes(
        event("update", {"id": 1}, **{"stream-position": "00000002/7C007328.9.00000002/7C007328"})
    ).changes
    (tenth,) = changes(
        event("update", {"id": 1}, **{"stream-position": "00000002/7C007328.10.00000002/7C007328"})
    ).changes
    assert second.sequence < tenth.sequence


@pytest.mark.covers("postgresql", "dms", "key change", "documented")
def test_key_change_is_a_delete_and_an_upsert_that_know_each_other() -> None:
    gone, here = changes(event("update", {"id": 45, "title": "x"}) | {"before-image": {"id": 46}}).changes
    assert (gone.op, gone.key, gone.new_key) == ("d", '{"id":46}', '{"id":45}')
    assert (here.op, here.key, here.old_key) == ("u", '{"id":45}', '{"id":46}')
    assert gone.sequence == here.sequence


def test_an_empty_before_image_is_no_key_change() -> None:
    (change,) = changes(event("update", {"id": 45}) | {"before-image": {}}).changes
    assert change.old_key is None


@pytest.mark.parametrize("operation", ["insert", "delete"])
def test_a_before_image_counts_in_an_update_alone(operation: str) -> None:
    (change,) = changes(
        event(operation, {"id": 45}) | {"before-image": {"id": json.loads("[" * 101 + "]" * 101)}}
    ).changes
    assert (change.key, change.old_key) == ('{"id":45}', None)


def test_an_update_without_a_before_image_hides_whether_it_changed_the_key() -> None:
    (blind,) = changes(event("update", {"id": 45})).changes
    assert blind.hides_old_key
    told = [event("update", {"id": 45}) | {"before-image": {}}, event("insert", {"id": 45}), event("load", {"id": 45})]
    assert not any(change.hides_old_key for each in told for change in changes(each).changes)


@pytest.mark.covers("postgresql", "dms", "delete", "documented")
def test_a_delete_tells_nothing_but_its_key() -> None:
    (change,) = changes(event("delete", {"id": 4, "title": None})).changes
    assert change.columns == {}


def test_pretty_and_one_line_json_are_the_same() -> None:
    text = compact(event("insert", {"id": 4})) or b""
    assert changes(b"\n  " + text.replace(b",", b",\n  ") + b"\n") == changes(text)


@pytest.mark.covers("postgresql", "dms", ("type", "drift"), "documented")
def test_a_control_record_announces_types_and_deletes_nothing() -> None:
    table = {"columns": {"id": {"type": "INT32"}, "price": {"type": "NUMERIC", "precision": 10, "scale": 2}}}
    metadata = event("create-table", None)["metadata"] | {"record-type": "control"}
    decoded = decode(record({"control": {"table-def": table | {"primary-key": ["id"]}}, "metadata": metadata}), CONTEXT)
    assert isinstance(decoded, Ignored)
    assert decoded.schema is not None
    assert decoded.schema.columns == {"id": "int", "price": "decimal(10,2)"}
    dropped = decode(record({"control": {}, "metadata": metadata | {"operation": "drop-table"}}), CONTEXT)
    assert isinstance(dropped, Ignored)


@pytest.mark.parametrize(
    ("value", "condition"),
    [
        (b"{", "MALFORMED_JSON"),
        ({"data": {}}, "NOT_AN_ENVELOPE"),
        (event("merge", {"id": 1}), "NOT_AN_ENVELOPE"),
        (event("update", {"title": "x"}), "NO_KEY"),
        (event("update", {"id": 1}, **{"stream-position": "mysql-bin.000001:4"}), "NO_SEQUENCE"),
        (event("update", {"id": 1}, **{"stream-position": None}), "NO_SEQUENCE"),
    ],
)
def test_poison_is_a_reject(value: Any, condition: str) -> None:
    decoded = decode(record(value), CONTEXT)
    assert isinstance(decoded, Reject)
    assert decoded.condition == condition


def test_tables_nobody_configured_are_counted_and_left() -> None:
    decoded = decode(record(event("insert", {"id": 1}, **{"table-name": "other"})), CONTEXT)
    assert isinstance(decoded, Ignored)
    context = dataclasses.replace(CONTEXT, others=frozenset({"public.other"}))
    assert isinstance(decode(record(event("insert", {"id": 1}, **{"table-name": "other"})), context), Reject)


@pytest.mark.covers("postgresql", "dms", "type", "documented")
@pytest.mark.parametrize(
    ("kind", "told", "value"),
    [
        ("array<int>", "{1,2,NULL}", [1, 2, None]),
        ("array<int>", "{{1,2},{3,4}}", [[1, 2], [3, 4]]),
        ("array<int>", "[0:1]={5,6}", [5, 6]),
        ("array<text>", '{a,"b,c",NULL,"NULL","x\\"y\\\\z",ü☃}', ["a", "b,c", None, "NULL", 'x"y\\z', "ü☃"]),
        ("array<text>", "{}", []),
        ("array<text>", "no array", "no array"),
        ("array<text>", "{cut", "{cut"),
        ("array<text>", ["a"], ["a"]),
        ("timestamptz", "2026-02-03T03:05:06.789", "2026-02-03T03:05:06.789Z"),
        ("timestamptz", "2026-02-03T03:05:06+01:00", "2026-02-03T03:05:06+01:00"),
    ],
)
def test_a_declared_type_says_what_dms_does_not(kind: str, told: Any, value: Any) -> None:
    convert = converter(kind)
    assert convert is not None
    assert convert(told) == value
    assert convert(convert(told)) == value

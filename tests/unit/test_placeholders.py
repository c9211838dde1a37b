"""A value that the source did not send is never NULL: placeholders, and nulls that stand for nothing."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.changes import Change, Changes
from schemas.records import Record
from tests.history import folded
from tests.recorded import compact
from transforms.context import DecodeContext, TableContext
from transforms.envelopes.decode import decode
from transforms.envelopes.placeholders import has_placeholder
from transforms.fold import RowState

CONTEXT = DecodeContext("debezium", {"public.t": TableContext("public.t", ("id",))})
INT = {"type": "int32", "parameters": {"__debezium.source.column.type": "INT4"}}
LARGE = "TGFyZ2Vz" * 2000


def column(kind: str, source: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "parameters": {"__debezium.source.column.type": source}, **more}


def change(
    op: str, after: dict[str, Any], at: int, field: dict[str, Any], *, before: Any = None, moved_from: int | None = None
) -> Change:
    """A change of a table with a key and one other column, `v`, as a record with its schema block tells it."""
    row = {"type": "struct", "field": "after", "fields": [INT | {"field": "id"}, field | {"field": "v"}]}
    source = {"schema": "public", "table": "t", "sequence": f'["{at}","{at}"]', "ts_us": at}
    payload = {"op": op, "before": before, "after": after, "source": source}
    headers = () if moved_from is None else (("__debezium.oldkey", compact({"id": moved_from})),)
    value = compact({"schema": {"type": "struct", "fields": [row]}, "payload": payload})
    decoded = decode(Record("t", "0", str(at), compact({"id": after["id"]}), value, headers), CONTEXT)
    assert isinstance(decoded, Changes), decoded
    return decoded.changes[0]


def row_after(*changes: Change) -> RowState:
    states = [folded(order) for order in (changes, changes[::-1])]
    assert states[0] == states[1]
    return states[0][changes[-1].key]


AS_TEXT = column("string", "BYTEA")
UNSURE = {
    "bytes as base64 text": AS_TEXT,
    "bits": column("bytes", "VARBIT", name="io.debezium.data.Bits"),
    "numbers": column("array", "_NUMERIC", items={"type": "string"}),
    "whole numbers in a domain": column("array", "WHOLE_NUMBERS", items={"type": "int32"}),
    "vector": column("array", "VECTOR", name="io.debezium.data.DoubleVector", items={"type": "double"}),
    "sparse vector": column("struct", "SPARSEVEC", name="io.debezium.data.SparseDoubleVector"),
    "bytes in an array as base64 text": column("array", "_BYTEA", items={"type": "string"}),
    "path as base64 text": column("string", "PATH"),
}
SURE = {
    "text": column("string", "TEXT"),
    "bytes": column("bytes", "BYTEA"),
    "path": column("bytes", "PATH"),
    "texts": column("array", "_TEXT", items={"type": "string"}),
    "bytes in an array": column("array", "_BYTEA", items={"type": "bytes"}),
    "integer": INT,
    "moment": column("string", "TIMESTAMPTZ", name="io.debezium.time.ZonedTimestamp"),
}


@pytest.mark.covers("postgresql", "debezium", "large value", "documented")
@pytest.mark.parametrize("field", UNSURE.values(), ids=UNSURE)
def test_null_that_may_stand_for_an_unchanged_value_keeps_the_older_one(field: dict[str, Any]) -> None:
    """As recorded of debezium#5353: a bytea out of line, another column updated, null instead of the placeholder."""
    value: Any = ["x"] if field["type"] == "array" else {"x": 1} if field["type"] == "struct" else LARGE
    snapshot = change("r", {"id": 1, "v": value}, 1, field)
    update = change("u", {"id": 1, "v": None}, 2, field)
    assert row_after(snapshot, update).values()["v"] == snapshot.columns["v"]
    assert row_after(update).unresolved(["v"]) == ("v",)
    moved = change("c", {"id": 2, "v": None}, 3, field, moved_from=1)
    assert moved.unavailable == ("v",)


@pytest.mark.parametrize("field", [*UNSURE.values(), *SURE.values()], ids=[*UNSURE, *SURE])
def test_null_in_whole_row_or_over_value_of_old_row_is_null(field: dict[str, Any]) -> None:
    for op, before in (("c", None), ("r", None), ("u", {"id": 1, "v": "of the old row"})):
        known = change(op, {"id": 1, "v": None}, 1, field, before=before)
        assert (known.columns, known.complete) == ({"id": 1, "v": None}, True)


@pytest.mark.parametrize("field", SURE.values(), ids=SURE)
def test_a_null_where_debezium_has_a_placeholder_is_null(field: dict[str, Any]) -> None:
    assert change("u", {"id": 1, "v": None}, 1, field).columns["v"] is None


def test_an_array_that_debezium_cannot_send_is_pending_in_every_row() -> None:
    field = column("bytes", "_BIT", name="io.debezium.data.Bits")
    assert row_after(change("c", {"id": 1, "v": None}, 1, field)).unresolved(["v"]) == ("v",)


@pytest.mark.covers("postgresql", "debezium", "large value", "documented")
def test_an_unchanged_hstore_is_a_map_of_the_placeholder_as_json_text() -> None:
    word = "__debezium_unavailable_value"
    field = column("string", "HSTORE", name="io.debezium.data.Json")
    assert change("u", {"id": 1, "v": f'{{"{word}":"{word}"}}'}, 1, field).unavailable == ("v",)


@pytest.mark.parametrize(
    ("base", "in_domain", "expected"),
    [
        ("text", True, True),
        ("_int4", False, True),
        ("_int4", True, False),
        ("_int2", False, False),
        ("vector", False, False),
    ],
)
def test_a_type_has_a_placeholder_or_needs_the_old_row(base: str, *, in_domain: bool, expected: bool) -> None:
    assert has_placeholder(base, in_domain=in_domain) == expected

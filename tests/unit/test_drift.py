"""Columns that change at the source: what the current table, the documents and decoding make of them, in any order and cut."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from pydantic import ValidationError

from glue_jobs.config.pipeline import table_context
from indexing.work_unit import decoded as unit_of
from lake.tables.drift import drifts
from schemas.changes import Changes, Reject
from schemas.errors import StoppedError
from schemas.records import Record
from tests.drifting import (
    EVOLVED,
    FROZEN,
    TABLE,
    DriftingTable,
    MemoryTable,
    Row,
    configured,
    context_of,
    history,
    renamed_history,
    shuffled,
    specs_of,
)
from transforms.context import DecodeContext
from transforms.drift import ColumnWatch
from transforms.envelopes.decode import decode


@pytest.mark.covers("postgresql", "debezium", "drift", "documented")
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    ("drift", "expected", "rejected"),
    [
        ("evolve", EVOLVED, set()),
        ("ignore", FROZEN, {"n", "code"}),
        ("reject", FROZEN, {"n", "code", "late"}),
    ],
)
def test_a_drifting_history_ends_the_same_in_any_order_and_cut(
    drift: str, expected: dict[str, Row], rejected: set[str], seed: int
) -> None:
    lake = MemoryTable(configured(drift=drift))
    for batch in shuffled(history().records, seed):
        lake.merge(batch)
    assert lake.contents == expected
    assert rejected <= {column for _, column, _ in lake.rejects}
    before = dict(lake.rows)
    lake.merge(history().records)
    assert lake.rows == before, "the same records again change nothing"


@pytest.mark.parametrize("drift", ["ignore", "reject"])
def test_what_was_left_out_comes_back_when_it_is_accepted(drift: str) -> None:
    lake = MemoryTable(configured(drift=drift))
    for batch in shuffled(history().records, 5):
        lake.merge(batch)
    lake.configure(configured(drift=drift, drift_exceptions={"late": "evolve", "n": "evolve", "code": "evolve"}))
    assert lake.contents == EVOLVED
    lake.configure(configured(drift=drift))
    assert lake.contents == FROZEN
    lake.configure(configured())
    assert lake.contents == EVOLVED


def test_a_column_that_differs_stops_the_merge_until_it_is_decided() -> None:
    records = history().records
    lake = MemoryTable(configured(drift="stop"))
    lake.merge(records[:3])
    with pytest.raises(StoppedError, match=r"late was added \(text\), and `drift` is stop.*\n.*ragstream run CONFIG"):
        lake.merge(records[3:4])
    lake.configure(configured(drift="stop", drift_exceptions={"late": "evolve"}))
    lake.merge(records[3:4])
    with pytest.raises(StoppedError, match="n was retyped \\(int → bigint\\), code was retyped \\(int → text\\)"):
        lake.merge(records[4:5])
    accepted = {"late": "evolve", "n": "evolve", "code": "evolve", "old": "ignore"}
    lake.configure(configured(drift="stop", drift_exceptions=accepted))
    lake.merge(records[4:])
    assert lake.contents == EVOLVED


def test_drift_is_told_by_column_with_what_is_done_about_it() -> None:
    lake = MemoryTable(configured(drift="ignore", drift_exceptions={"n": "evolve"}))
    lake.merge(history().records)
    assert [drift.sentence for drift in drifts(lake.table, lake.observed)] == [
        "n was retyped (int → bigint): taken in",
        (
            "code was retyped (int → text): what does not fit the first type is a reject; "
            "`drift_exceptions: {code: evolve}` makes the column wider"
        ),
        "old was dropped: rows keep the value they had",
        "late was added (text): left out; `drift_exceptions: {late: evolve}` takes it in, with what has landed of it",
    ]


@pytest.mark.covers("postgresql", "debezium", "drift", "documented")
@pytest.mark.parametrize("seed", range(6))
def test_a_renamed_column_goes_on_under_the_name_it_had(seed: int) -> None:
    lake = MemoryTable(configured(renamed={"text": "body", "item": "id"}))
    for batch in shuffled(renamed_history().records, seed):
        lake.merge(batch)
    expected = {2: "two, edited", 3: "three"}
    assert lake.contents == {f'{{"id":{key}}}': {"id": key, "body": text} for key, text in expected.items()}


@pytest.mark.parametrize("seed", range(4))
def test_a_column_added_with_a_default_is_pending_in_rows_from_before(seed: int) -> None:
    table = DriftingTable({"id": "int32", "old": "string"})
    table.defaults["old"] = "o"
    for number in (1, 2):
        table.write("c", {"id": number, "old": "o"})
    table.retype(late="string")
    table.defaults["late"] = "x"
    table.write("u", {"id": 2, "old": "o", "late": "x"})
    table.retype(old=None)
    table.write("c", {"id": 3, "late": None})
    lake = MemoryTable(configured())
    for batch in shuffled(table.records, seed):
        lake.merge(batch)
    pending = {number: lake.rows[f'{{"id":{number}}}']["_pending"] for number in (1, 2, 3)}
    assert pending == {1: ["late"], 2: None, 3: None}


def test_rows_that_were_stored_under_the_new_name_join_the_old_one() -> None:
    lake = MemoryTable(configured())
    lake.merge(renamed_history().records[:3])
    assert lake.contents['{"id":2}'] == {"id": 2, "body": "two", "text": "two, edited"}
    lake.configure(configured(renamed={"text": "body"}))
    assert lake.contents == {'{"id":1}': {"id": 1, "body": "one"}, '{"id":2}': {"id": 2, "body": "two, edited"}}


def test_records_without_the_key_column_stop_every_reader() -> None:
    *_, record, deleted = renamed_history().records
    table = configured(renamed={"text": "body"})
    for read in (record, deleted):
        decoded = decode(read, context_of(table))
        assert isinstance(decoded, Reject)
        assert decoded.condition == "KEY_COLUMN_GONE"
        with pytest.raises(
            StoppedError, match=r"has no column id any more, which `keys` names.*\n.*renamed: {NEW: OLD}"
        ):
            unit_of([read], context_of(table), {}, ColumnWatch(context_of(table)))
    tolerated = configured(renamed={"text": "body"}, drift_exceptions={"id": "reject"})
    decoded = decode(record, context_of(tolerated))
    assert isinstance(decoded, Reject)
    assert decoded.condition == "NO_KEY"


@pytest.mark.covers("postgresql", "debezium", "drift", "documented")
def test_a_key_with_another_column_stops_the_merge_in_any_order() -> None:
    table = DriftingTable({"id": "int32", "place": "string"})
    table.write("c", {"id": 1, "place": "a"})
    table.write("c", {"id": 1, "place": "b"}, "id", "place")
    for batches in ([[record] for record in table.records], [[record] for record in table.records[::-1]]):
        lake = MemoryTable(configured())
        lake.merge(batches[0])
        with pytest.raises(StoppedError, match="its key was id, as `keys` say, and is id, place now"):
            lake.merge(batches[1])
    both = MemoryTable(configured(keys=["id", "place"]))
    both.merge(table.records)
    assert len(both.contents) == 2
    kept = MemoryTable(configured(drift_exceptions={"id": "ignore"}))
    kept.merge(table.records)
    assert kept.contents == {'{"id":1}': {"id": 1, "place": "b"}}


DOCUMENT = {"template": "{old}", "metadata": ["late"]}


@pytest.mark.covers("postgresql", "debezium", "drift", "documented")
@pytest.mark.parametrize("seed", range(6))
def test_a_template_column_that_is_gone_stops_indexing_in_any_order(seed: int) -> None:
    table, records = configured(document=DOCUMENT), history().records
    specs = specs_of(table)
    watch, r = ColumnWatch(context_of(table)), random.Random(seed)
    assert unit_of(records[:6], context_of(table), specs, watch).counts["records"] == 6, "late came: no drift"
    r.shuffle(records)
    with pytest.raises(StoppedError, match=r"inv\.items has no column old any more, which `document.template` names"):
        unit_of(records, context_of(table), specs, ColumnWatch(context_of(table)))
    kept = configured(document=DOCUMENT, drift_exceptions={"old": "ignore"})
    assert unit_of(records, context_of(kept), specs, ColumnWatch(context_of(kept))).counts["records"] == 7


def test_reading_again_from_before_a_column_was_added_stops_nothing() -> None:
    table, records = configured(document={"template": "{late}"}), history().records
    context = context_of(table)
    known = {TABLE: replace(context.tables[TABLE], announced={"late": "~"})}
    for settings in (context, replace(context, tables=known)):
        unit = unit_of(records, settings, specs_of(table), ColumnWatch(settings))
        assert unit.counts["records"] == 7


@pytest.mark.covers("postgresql", "dms", "drift", "documented")
def test_dms_tells_a_lost_template_column_by_a_control_record() -> None:
    table = configured(document=DOCUMENT)
    context = DecodeContext("dms", {TABLE: table_context(table)})

    def control(at: int, *names: str) -> Record:
        metadata = {"record-type": "control", "operation": "create-table", "schema-name": "inv", "table-name": "items"}
        columns = {name: {"type": "WSTRING"} for name in ("id", *names)}
        value = {
            "control": {"table-def": {"columns": columns}},
            "metadata": metadata | {"timestamp": f"2026-03-0{at}T00:00:00Z"},
        }
        return Record("s", "0", str(at), None, json.dumps(value).encode())

    watch = ColumnWatch(context)
    unit_of([control(2, "old"), control(1), control(3, "old", "late")], context, {}, watch)
    with pytest.raises(StoppedError, match="no column old any more"):
        unit_of([control(4, "late")], context, {}, watch)


@pytest.mark.covers("postgresql", "dms", "drift", "documented")
def test_dms_records_of_a_renamed_column_have_the_name_it_had() -> None:
    table = table_context(configured(renamed={"item": "id", "text": "body"}))
    metadata = {
        "record-type": "data", "operation": "update", "schema-name": "inv", "table-name": "items",
        "timestamp": "2026-03-01T10:00:01Z", "commit-timestamp": "2026-03-01T10:00:01Z",
        "stream-position": "00000002/7C007328.2.00000002/7C007328",
    }  # fmt: skip
    value = {"data": {"item": 2, "text": "x"}, "before-image": {"item": 1}, "metadata": metadata}
    decoded = decode(Record("s", "0", "1", None, json.dumps(value).encode()), DecodeContext("dms", {TABLE: table}))
    assert isinstance(decoded, Changes)
    gone, here = decoded.changes
    assert (gone.key, gone.new_key, here.old_key) == ('{"id":1}', '{"id":2}', '{"id":1}')
    assert here.columns == {"id": 2, "body": "x"}


def test_a_column_renamed_twice_or_in_a_circle_is_refused() -> None:
    assert configured(renamed={"text": "body", "content": "body"}).renamed == {"text": "body", "content": "body"}
    with pytest.raises(ValidationError, match="`renamed` has body on both sides"):
        configured(renamed={"text": "body", "body": "content"})


def test_check_knows_a_column_by_the_name_it_has_here() -> None:
    table = configured(renamed={"text": "body"}, document={"template": "{body}"})
    assert table.unknown_columns(["id", "text"]) == []
    assert configured(document={"template": "{body}"}).unknown_columns(["id", "text"]) != []

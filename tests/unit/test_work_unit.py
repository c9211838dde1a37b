"""What a group of records means for the stores, and how results of several add up."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np

from indexing.result import IndexResult, Written
from indexing.work_unit import FRESHNESS_SAMPLE, WorkUnit, decoded, freshness
from schemas.changes import Reject
from schemas.records import Record
from tests.feeding import CONTEXT, SPECS
from tests.history import TABLE, ModelTable, as_record, key_of


def unit(commit_us: int) -> WorkUnit:
    return WorkUnit(commits_us={"t": [commit_us]}, reached_us={"s/0": commit_us})


def test_a_partition_has_reached_its_newest_commit_or_that_ones_arrival() -> None:
    table = ModelTable()
    for number in range(1, 4):
        table.insert(number, f"row {number}")
    first, second, third = (as_record(change) for change in table.changes)  # committed at 1, 2 and 3 microseconds
    future = third._replace(value=(third.value or b"").replace(b'"ts_us":3', b'"ts_us":250000000000000000'))
    assert future.value != third.value
    records = [first, second._replace(partition="1", timestamp_ms=9), future._replace(partition="2", timestamp_ms=8)]
    ignored = Record("t", "3", "0", None, None, (), 7)
    work = decoded([*records, ignored], CONTEXT, SPECS)
    assert work.reached_us == {"t/0": 1, "t/1": 2, "t/2": 8_000, "t/3": 7_000}
    assert work.counts == {"records": 4, "ignored": 1}
    assert not work.is_empty
    assert decoded([ignored], CONTEXT, SPECS).is_empty


def test_the_newest_whole_row_says_which_columns_of_the_document_are_missing() -> None:
    table = ModelTable()
    table.insert(1, "x")
    whole = table.changes[0]
    without = replace(whole, columns={n: v for n, v in whole.columns.items() if n != "a"})
    result = IndexResult()
    result.add_unit(decoded([as_record(without)], CONTEXT, SPECS))
    assert result.whole_rows[TABLE].absent == ("a",)
    assert "body" in result.whole_rows[TABLE].columns
    table.insert(2, "y")
    result.add_unit(decoded([as_record(table.changes[-1]), as_record(without)], CONTEXT, SPECS))
    assert result.whole_rows[TABLE].absent == ()


def test_newest_record_of_a_row_is_the_one_of_the_greatest_sequence() -> None:
    table = ModelTable()
    table.insert(1, "x")
    table.update_body(1, "y")
    older, newer = (as_record(change) for change in table.changes)
    for records in ([older, newer], [newer, older]):
        assert decoded(records, CONTEXT, SPECS).newest_records[TABLE, key_of(1)][1] == newer


def test_freshness_is_told_of_a_sample_of_each_table() -> None:
    committed_us = 1_000_000_000
    units = [unit(committed_us + n) for n in range(FRESHNESS_SAMPLE + 7)]
    freshness_ms = freshness(units, committed_us + 2_000_000)
    assert len(freshness_ms["t"]) == FRESHNESS_SAMPLE
    assert freshness_ms["t"][:1] == [2_000.0]
    result = IndexResult()
    for now_us in (committed_us + 1_000, committed_us + 9_000):
        result.add_searchable(units, now_us)
    assert result.changes == {"t": 2 * len(units)}
    assert len(result.freshness_ms["t"]) == FRESHNESS_SAMPLE
    assert result.reached_us == {"s/0": committed_us + FRESHNESS_SAMPLE + 6}


def test_results_add_up_and_survive_being_sent_to_another_process() -> None:
    table = ModelTable()
    table.insert(1, "x")
    record = as_record(table.changes[0])
    parts = []
    for number in (1, 2):
        part = IndexResult()
        part.add_unit(decoded([record], CONTEXT, SPECS))
        vectors = {"model": {f"hash {number}": np.full(4, number, np.float32)}}
        part.add_written(Written({"writes": number}, vectors, [(record, Reject("C", "m"))]))  # type: ignore[arg-type]
        part.add_searchable([unit(number)], 10_000)
        part.missed.add(f"store {number}")
        parts.append(pickle.loads(pickle.dumps(part)))  # noqa: S301 - what was just made
    whole, other = parts
    whole.add(other)
    assert whole.counts == {"records": 2, "writes": 3}
    assert whole.embedded["model"].keys() == {"hash 1", "hash 2"}
    assert whole.changes == {"t": 2}
    assert whole.freshness_ms["t"] == [10.0, 10.0]
    assert (whole.reached_us, whole.missed) == ({"s/0": 2}, {"store 1", "store 2"})
    assert len(whole.rejected) == 2

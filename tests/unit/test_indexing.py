"""What an indexer tells of pieces that its stores have, or have missed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from schemas.records import Record
from sinks.indexing import Indexer, Indexing, Piece
from sinks.several import Missed, Several
from tests.feeding import CONTEXT, RECIPES, CountingEmbedder
from tests.history import TABLE, ModelTable, as_record

PLACE = ("articles", "0")


class Store:
    """A name."""

    def __init__(self, name: str) -> None:
        self.name = name


@pytest.fixture
def work() -> Indexing:
    stores = Several(cast("Any", [Store("here"), Store("away")]))
    return Indexing(Indexer(CONTEXT, RECIPES, stores, CountingEmbedder(), texts_at_once=8))


def piece(commit_us: int, first: str, last: str) -> Piece:
    return Piece(
        commits_us={"t": [commit_us]}, reached_us={"s/0": commit_us}, positions={PLACE: (first, last)}, waiting=2
    )


def test_each_change_is_as_fresh_as_when_the_last_store_had_it(work: Indexing, monkeypatch: pytest.MonkeyPatch) -> None:
    committed_us = 1_000_000_000
    one, other = piece(committed_us + 1, "9", "9"), piece(committed_us + 2, "10", "10")
    work.done("here", [one, other], None)
    assert (work.result.changes, work.result.reached_us) == ({}, {})
    for each, written_us in ((one, 2_000_000), (other, 5_000_000)):
        monkeypatch.setattr("time.time_ns", lambda us=written_us: (committed_us + us) * 1000)
        work.done("away", [each], None)
    monkeypatch.undo()
    assert (work.result.changes, work.result.reached_us) == ({"t": 2}, {"s/0": committed_us + 2})
    assert work.result.freshness_ms["t"] == [2_000.0, 5_000.0]
    assert (work.result.missed, work.result.positions) == ({}, {})


def test_a_partition_has_come_to_its_newest_commit_or_where_that_lies_ahead_to_its_arrival(work: Indexing) -> None:
    table = ModelTable()
    for number in range(1, 4):
        table.insert(number, f"row {number}")
    first, second, third = (as_record(change) for change in table.changes)  # committed at 1, 2 and 3 microseconds
    future = third._replace(value=(third.value or b"").replace(b'"ts_us":3', b'"ts_us":250000000000000000'))
    assert future.value != third.value
    records = [first, second._replace(partition="1", timestamp_ms=9), future._replace(partition="2", timestamp_ms=8)]
    ignored = Record("t", "3", "0", None, None, (), 7)
    assert work.sorted_out([*records, ignored]).reached_us == {"t/0": 1, "t/1": 2, "t/2": 8_000, "t/3": 7_000}


def test_what_a_store_missed_is_told_as_of_its_longest_outage_and_covers_no_other_piece(work: Indexing) -> None:
    work.done("away", [piece(1, "7", "8")], None)
    work.done("away", [piece(1, "99", "100")], Missed(30.0, tried=False))
    work.done("away", [piece(1, "9", "10")], Missed(50.0, tried=True))
    work.done("away", [piece(1, "101", "101")], Missed(40.0, tried=True))
    assert work.result.missed == {"away": Missed(40.0, tried=True)}
    assert work.result.positions == {PLACE: ("9", "101")}


def test_the_newest_whole_row_says_which_columns_of_the_document_are_missing(work: Indexing) -> None:
    table = ModelTable()
    table.insert(1, "x")
    whole = table.changes[0]
    without = replace(whole, columns={n: v for n, v in whole.columns.items() if n != "a"})
    work.sorted_out([as_record(without)])
    assert work.result.whole_rows[TABLE].absent == ("a",)
    assert "body" in work.result.whole_rows[TABLE].columns
    table.insert(2, "y")
    work.sorted_out([as_record(table.changes[-1]), as_record(without)])
    assert work.result.whole_rows[TABLE].absent == ()

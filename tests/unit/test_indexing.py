"""When an indexer takes it that its stores have something."""

from __future__ import annotations

from typing import Any, cast

import pytest

from sinks.indexing import Indexer, Indexing
from sinks.several import Missed, Several
from sinks.work_unit import WorkUnit
from tests.feeding import CONTEXT, RECIPES, CountingEmbedder
from tests.history import TABLE, ModelTable, as_record


class Store:
    """A name."""

    def __init__(self, name: str) -> None:
        self.name = name


def test_each_change_is_as_fresh_as_when_the_last_store_had_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stores = Several(cast("Any", [Store("here"), Store("away")]))
    indexer = Indexer(CONTEXT, RECIPES, stores, CountingEmbedder(), texts_at_once=8)
    work = Indexing(indexer, indexer._shared)
    table = ModelTable()
    table.insert(1, "x")
    table.insert(2, "y")
    units: list[WorkUnit] = [unit for unit, _ in work.units([[as_record(change)] for change in table.changes])]
    first_us, second_us = (unit.commits_us[TABLE][0] for unit in units)
    work.done("here", units, None)
    assert (work.result.changes, work.result.reached_us) == ({}, {})
    for unit, written_us in zip(units, (first_us + 2_000_000, second_us + 5_000_000), strict=True):
        monkeypatch.setattr("time.time_ns", lambda us=written_us: us * 1000)
        work.done("away", [unit], None)
    monkeypatch.undo()
    (changes,) = work.result.changes.values()
    assert (changes, work.result.reached_us) == (2, {"t/0": second_us})
    assert [*work.result.freshness_ms.values()] == [[2_000.0, 5_000.0]]
    assert (work.result.missed, work.result.positions) == ({}, {})
    work.done("away", [], Missed(1.0, tried=True))
    assert work.result.missed.keys() == {"away"}

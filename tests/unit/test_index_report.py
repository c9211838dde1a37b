"""What the driver of index_documents tells the stores of their freshness."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from glue_jobs.index_report import IndexReports


class Notes:
    """A store that only hears how fresh it is."""

    name = "notes"

    def __init__(self) -> None:
        self.told: list[int] = []

    def note_progress(self, indexed_as_of_us: int) -> None:
        self.told.append(indexed_as_of_us)


def test_a_store_is_as_fresh_as_the_source_that_is_furthest_behind(tmp_path: Path) -> None:
    store = Notes()
    reports = IndexReports(str(tmp_path), "model", cast("Any", [store]), ["articles", "tickets"])
    reports.idle("articles", 100)
    reports.note_progress()
    assert store.told == []  # nothing is known of the tickets
    reports.idle("tickets", 70)
    reports.note_progress()
    reports.idle("articles", 120)
    reports.note_progress()
    reports.idle("tickets", 60)  # a batch of old commits takes nothing back
    reports.note_progress()
    reports.idle("tickets", 130)
    reports.note_progress()
    assert store.told == [70, 120]

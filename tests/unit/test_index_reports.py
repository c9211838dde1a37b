"""What the driver of index_documents tells the stores of their freshness."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest

from embeddings import EmbeddingCounts
from glue_jobs.index_reports import IndexReports
from glue_jobs.runtime.status_record import QueryRecord
from schemas.errors import UnavailableError
from sinks.index_report import report_rows
from sinks.index_result import IndexResult
from transforms.documents import WholeRow


class Notes:
    """A store that only hears how fresh it is."""

    name = "notes"

    def __init__(self) -> None:
        self.told: list[int] = []

    def note_progress(self, indexed_as_of_us: int) -> None:
        self.told.append(indexed_as_of_us)


def test_a_store_is_as_fresh_as_the_source_that_is_furthest_behind(tmp_path: Path) -> None:
    store = Notes()
    reports = IndexReports(str(tmp_path), cast("Any", [store]), ["articles", "tickets"])
    articles, tickets = reports.as_of.values()
    articles.emptied(100)
    reports.note_progress()
    assert store.told == []  # nothing is known of the tickets
    tickets.emptied(70)
    reports.note_progress()
    articles.emptied(120)
    reports.note_progress()
    tickets.emptied(60)  # an older time takes nothing back
    reports.note_progress()
    tickets.emptied(130)
    reports.note_progress()
    assert store.told == [70, 120]


class Silent(Notes):
    """A store that answers nobody until the test is over."""

    name = "silent"
    over = threading.Event()  # of the class: a store is copied to be probed
    asked = 0

    def note_progress(self, indexed_as_of_us: int) -> None:
        self.asked += 1
        self.over.wait()

    def truncations(self) -> None:
        self.over.wait()

    def close(self) -> None: ...


@pytest.fixture
def silent() -> Iterator[Silent]:
    Silent.over.clear()
    yield Silent()
    Silent.over.set()
    for thread in threading.enumerate():
        if thread.name.startswith("store-silent"):
            thread.join(5)


def test_a_store_that_never_answers_keeps_no_other_from_being_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: Silent
) -> None:
    monkeypatch.setattr("glue_jobs.index_reports.SILENT_SECONDS", 0.2)
    monkeypatch.setattr("sinks.watched.PROBE_SECONDS", 0.2)
    store = Notes()
    reports = IndexReports(str(tmp_path), cast("Any", [silent, store]), ["articles"])
    for as_of_us in (100, 200):
        reports.as_of["articles"].emptied(as_of_us)
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="silent does not answer"):
            reports.note_progress()
        assert time.monotonic() - began < 5
    assert store.told == [100, 200]
    assert silent.asked == 1, "the call that has no answer is left alone, and the next goes another way"


def whole_row(sequence: str, *absent: str) -> pa.Table:
    """What a worker tells when the newest whole row of its records lacks columns."""
    row = WholeRow(sequence, absent, ("id", "description") if absent else ())
    return pa.Table.from_batches([report_rows(IndexResult(whole_rows={"t": row}), EmbeddingCounts())])


def test_a_column_that_whole_rows_lack_is_logged_once_and_stands_in_the_status_until_a_row_has_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reports, record = IndexReports(str(tmp_path), [], []), QueryRecord("index_articles")
    for batch, told in enumerate([whole_row("02", "descripton"), whole_row("01"), whole_row("03", "descripton")]):
        record.add(batch, 0, reports.take(told), 1.0, 1.0)
        assert record.columns_missing["t"][1] == ["descripton"], "an older whole row takes nothing back"
        record = QueryRecord.of_json(json.loads(json.dumps(record.as_json())))
    (logged,) = caplog.records
    assert vars(logged)["context"] == {"table": "t", "column": "descripton", "near": ["description"]}
    record.add(9, 0, reports.take(whole_row("04")), 1.0, 1.0)
    assert record.columns_missing["t"][1] == []

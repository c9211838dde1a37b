"""What the driver of index_documents tells the stores of their freshness."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest

from embeddings import EmbeddingCounts
from glue_jobs.status.index_reports import IndexReports
from glue_jobs.status.record import QueryRecord
from indexing.report import report_rows
from indexing.result import IndexResult
from lake.landing.breaker import INDEXING, Breaker, CountsFile, RejectsConfig
from lake.layout import LakeLayout
from lake.storage import rows_of
from schemas.changes import Reject
from schemas.errors import StoppedError
from schemas.records import Record
from transforms.documents.planning import WholeRow


class Notes:
    """A store that only hears how fresh it is."""

    name = "notes"

    def __init__(self) -> None:
        self.noted: list[int] = []

    def note_progress(self, indexed_as_of_us: int) -> None:
        self.noted.append(indexed_as_of_us)


def test_a_store_is_as_fresh_as_the_source_that_is_furthest_behind(tmp_path: Path) -> None:
    store = Notes()
    reports = IndexReports(str(tmp_path), cast("Any", [store]), ["articles", "tickets"])
    articles, tickets = reports.as_of.values()
    note = partial(reports.note_progress, cast("Any", store))
    articles.emptied(100)
    note()
    assert store.noted == []  # nothing is known of the tickets
    tickets.emptied(70)
    note()
    articles.emptied(120)
    note()
    tickets.emptied(60)  # an older time takes nothing back
    note()
    tickets.emptied(130)
    note()
    assert store.noted == [70, 120]


def whole_row(sequence: str, *absent: str) -> pa.Table:
    """What a worker tells when the newest whole row of its records lacks columns."""
    row = WholeRow(sequence, absent, ("id", "description") if absent else ())
    return pa.Table.from_batches([report_rows(IndexResult(whole_rows={"t": row}), EmbeddingCounts())])


def test_a_column_that_whole_rows_lack_is_logged_once_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reports, record = IndexReports(str(tmp_path), [], []), QueryRecord("index_articles")
    for batch, result in enumerate([whole_row("02", "descripton"), whole_row("01"), whole_row("03", "descripton")]):
        record.add(batch, reports.take(result), 1.0, 1.0)
        assert record.columns_missing["t"][1] == ["descripton"], "an older whole row takes nothing back"
        record = QueryRecord.from_json(json.loads(json.dumps(record.to_json())))
    (logged,) = caplog.records
    assert vars(logged)["context"] == {"table": "t", "column": "descripton", "near": ["description"]}
    record.add(9, reports.take(whole_row("04")), 1.0, 1.0)
    assert record.columns_missing["t"][1] == []


def test_many_refused_documents_stop_the_job_and_are_rejects_by_then(tmp_path: Path) -> None:
    kept: list[str] = []
    limits = RejectsConfig(among=10)
    breaker = Breaker(INDEXING, "s", limits, CountsFile(lambda: kept[-1] if kept else None, kept.append))
    reports = IndexReports(str(tmp_path), [], [], None, breaker)
    reports.take(refused(10, 5))
    with pytest.raises(StoppedError, match="11 of the last 20 records of t are rejects") as stopped:
        reports.take(refused(10, 6))
    for part in ("DOCUMENT_TOO_LONG", "s/0 at 0", "replay CONFIG --condition DOCUMENT_TOO_LONG --table t"):
        assert part in str(stopped.value)
    rows = rows_of(LakeLayout(str(tmp_path)).path("rejects"), ["stage", "_key"])
    assert (len(rows), {row["stage"] for row in rows}) == (11, {"embed"})
    again = Breaker(INDEXING, "s", limits, CountsFile(lambda: kept[-1], kept.append))
    with pytest.raises(StoppedError):
        IndexReports(str(tmp_path), [], [], None, again).take(refused(10, 6))


def refused(changes: int, documents: int) -> pa.Table:
    """What a worker tells when the model refuses documents."""
    reject = Reject("DOCUMENT_TOO_LONG", "too long", "t", "embed", key="{}", sequence="0")
    rejected = [(Record("s", "0", str(at), None, b""), reject) for at in range(documents)]
    result = IndexResult(rejected=rejected, changes=Counter({"t": changes}), freshness_ms={"t": []})
    return pa.Table.from_batches([report_rows(result, EmbeddingCounts())])

"""What workers tell the driver: one report, however many groups it is of."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from embeddings import EmbeddingCounts
from schemas.changes import Reject
from schemas.records import Record
from sinks.index_report import IndexReport
from sinks.indexing import IndexResult
from sinks.several import Missed

PLACE = ("articles", "0")


def result(commit_us: int, name: str, missed: Missed | None, span: tuple[str, str]) -> IndexResult:
    made = IndexResult(newest_commit_us={"t": commit_us}, positions={PLACE: span})
    made.counts.update(records=1, written=1)
    made.commits_us["t"].append(commit_us)
    made.embedded["model"][name] = np.ones(2, np.float32)
    made.rejected.append((Record("articles", "0", span[0], b"k", b"v", (), 7), Reject("TOO_LONG", "why", "t", "embed")))
    if missed:
        made.missed["away"] = missed
    return made


def rows_of(report: IndexReport) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    first, *others = pa.Table.from_batches([report.rows(EmbeddingCounts(requests=3, texts=4))]).to_pylist()
    return json.loads(first["summary"]), others


def test_a_report_of_nothing_is_false_and_adds_nothing() -> None:
    report = IndexReport()
    assert not report
    summary, others = rows_of(report)
    assert (summary["counts"], summary["changes"], summary["missed"], others) == ({}, {}, {}, [])


def test_groups_add_up_and_each_change_is_as_fresh_as_when_its_group_was_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report, committed_us = IndexReport(), 1_000_000_000
    for name, written_us, position in (("a", 2_000_000, "9"), ("b", 5_000_000, "10")):
        monkeypatch.setattr("time.time_ns", lambda us=written_us: (committed_us + us) * 1000)
        report.add(result(committed_us + len(position), name, None, (position, position)))
    monkeypatch.undo()
    summary, others = rows_of(report)
    assert summary["counts"] == {"records": 2, "written": 2}
    assert (summary["changes"], summary["newest_commit_us"]) == ({"t": 2}, {"t": committed_us + 2})
    assert (summary["model"]["requests"], summary["model"]["texts"]) == (3, 4)
    assert summary["freshness_ms"]["t"] == [2_000.0, 5_000.0], (
        "told when its own group was written, not with the report"
    )
    assert {row["content_hash"] for row in others if row["content_hash"]} == {"a", "b"}
    assert [row["position"] for row in others if row["condition"]] == ["9", "10"]


def test_what_a_store_missed_covers_the_groups_it_missed_and_no_other() -> None:
    report = IndexReport()
    report.add(result(1, "a", None, ("7", "8")))
    report.add(result(1, "b", Missed(30.0, tried=False), ("99", "100")))
    report.add(result(1, "c", Missed(50.0, tried=True), ("9", "10")))
    report.add(result(1, "d", Missed(40.0, tried=True), ("101", "101")))
    summary, _ = rows_of(report)
    assert summary["missed"] == {"away": [40.0, True]}
    assert summary["positions"] == [[*PLACE, "9", "101"]]

"""What workers tell the driver: one report, however many groups it is of."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pyarrow as pa

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
    first, *others = pa.Table.from_batches([report.rows()]).to_pylist()
    return json.loads(first["summary"]), others


def test_a_report_of_nothing_is_false_and_adds_nothing() -> None:
    report = IndexReport()
    assert not report
    summary, others = rows_of(report)
    assert (summary["counts"], summary["changes"], summary["missed"], others) == ({}, {}, {}, [])


def test_groups_add_up_and_each_change_is_as_fresh_as_when_its_group_was_written() -> None:
    report, now_us = IndexReport(), time.time_ns() // 1000
    report.add(result(now_us - 2_000_000, "a", None, ("9", "9")), EmbeddingCounts(requests=1, texts=1))
    time.sleep(0.2)
    report.add(result(now_us - 1_000_000, "b", None, ("10", "10")), EmbeddingCounts(requests=2, texts=3))
    summary, others = rows_of(report)
    assert summary["counts"] == {"records": 2, "written": 2}
    assert (summary["changes"], summary["newest_commit_us"]) == ({"t": 2}, {"t": now_us - 1_000_000})
    assert (summary["model"]["requests"], summary["model"]["texts"]) == (3, 4)
    first, second = summary["freshness_ms"]["t"]
    assert 2_000 <= first < 2_150, "told when its own group was written, not when the report was"
    assert 1_200 <= second < 1_350
    assert {row["content_hash"] for row in others if row["content_hash"]} == {"a", "b"}
    assert [row["position"] for row in others if row["condition"]] == ["9", "10"]


def test_what_a_store_missed_covers_the_groups_it_missed_and_no_other() -> None:
    report = IndexReport()
    report.add(result(1, "a", None, ("7", "8")), EmbeddingCounts())
    report.add(result(1, "b", Missed(30.0, tried=False), ("99", "100")), EmbeddingCounts())
    report.add(result(1, "c", Missed(50.0, tried=True), ("9", "10")), EmbeddingCounts())
    report.add(result(1, "d", Missed(40.0, tried=True), ("101", "101")), EmbeddingCounts())
    summary, _ = rows_of(report)
    assert summary["missed"] == {"away": [40.0, True]}
    assert summary["positions"] == [[*PLACE, "9", "101"]]

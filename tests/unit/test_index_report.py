"""What a worker tells the driver, as rows."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa

from embeddings import EmbeddingCounts
from indexing.report import report_rows
from indexing.result import IndexResult
from schemas.changes import Reject
from schemas.records import Record


def test_counts_vectors_and_rejects_are_rows_of_one_report() -> None:
    index_result = IndexResult(reached_us={"t/0": 7}, missed={"b", "a"})
    index_result.counts.update(records=2, writes=1)
    index_result.changes["t"] = 2
    index_result.freshness_ms["t"] = [3.5]
    index_result.embedded["model"]["hash"] = np.ones(2, np.float32)
    index_result.rejected.append(
        (Record("articles", "0", "9", b"k", b"v", (), 7), Reject("TOO_LONG", "why", "t", "embed"))
    )
    asked = EmbeddingCounts(requests=3, texts=4)
    first, vector, reject = pa.Table.from_batches([report_rows(index_result, asked)]).to_pylist()
    summary = json.loads(first["summary"])
    assert (summary["counts"], summary["changes"]) == ({"records": 2, "writes": 1}, {"t": 2})
    assert (summary["reached_us"], summary["freshness_ms"]) == ({"t/0": 7}, {"t": [3.5]})
    assert (summary["model"]["requests"], summary["model"]["texts"]) == (3, 4)
    assert summary["missed"] == ["a", "b"]
    assert (vector["fingerprint"], vector["content_hash"]) == ("model", "hash")
    assert np.frombuffer(vector["embedding"], "<f4").tolist() == [1.0, 1.0]
    assert (reject["condition"], reject["table"], reject["position"], reject["value"]) == ("TOO_LONG", "t", "9", b"v")
    (nothing,) = pa.Table.from_batches([report_rows(IndexResult(), EmbeddingCounts())]).to_pylist()
    assert json.loads(nothing["summary"])["counts"] == {}

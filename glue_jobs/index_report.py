"""What the driver of `index_documents` does with the answers of its workers."""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from glue_jobs.runtime import Report
from lake import embedding_cache
from lake.rejects import append_rejects

if TYPE_CHECKING:
    import pyarrow as pa

    from sinks.protocol import Sink


class IndexReports:
    """Adds up the workers' counts, sends their new vectors to the cache and their rejects to the lake.

    Vectors that a crash kept from the cache are in the stores: `catch_up` takes them from there at the next start, so
    the lake can fill any store without the model (I13). A vector may be appended twice; readers take either.
    """

    def __init__(self, lake: str, fingerprint: str, sinks: Sequence[Sink]) -> None:
        """Take the lake's path, the model's fingerprint, and the stores."""
        self._lake = lake
        self._fingerprint = fingerprint
        self._sinks = sinks
        self._vectors: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def catch_up(self) -> None:
        """Append the vectors that the stores hold and the cache lacks."""
        cached = embedding_cache.hashes(self._lake, self._fingerprint)
        for sink in self._sinks:
            for content_hash, vector in sink.vectors_since(0):
                if content_hash not in cached:
                    self._vectors[content_hash] = np.asarray(vector, "<f4").tobytes()
        self.flush()

    def take(self, rows: pa.Table) -> Report:
        """Read the rows of one micro-batch (REPORT_COLUMNS)."""
        table = rows.to_pylist()
        with self._lock:
            self._vectors |= {row["content_hash"]: row["embedding"] for row in table if row["content_hash"]}
        rejects = [row for row in table if row["condition"]]
        if rejects:
            append_rejects(self._lake, rejects, stage="embed")
        summaries = [json.loads(row["summary"]) for row in table if row["summary"]]
        report = _report(summaries)
        if report.newest_commit_us:
            for sink in self._sinks:
                sink.note_progress(max(report.newest_commit_us.values()))
        return report

    def idle(self, at_us: int) -> None:
        """Note that the stream had nothing more at a moment: everything committed before is searchable."""
        for sink in self._sinks:
            sink.note_progress(at_us)

    def flush(self) -> None:
        """Append the vectors that have come since the last time, in one small commit."""
        with self._lock:
            vectors, self._vectors = self._vectors, {}
        if vectors:
            try:
                embedding_cache.append(self._lake, self._fingerprint, vectors)
            except BaseException:
                with self._lock:
                    self._vectors = vectors | self._vectors
                raise

    def sweep(self) -> None:
        """Let the stores remove what no reader sees."""
        for sink in self._sinks:
            sink.sweep()


def _report(summaries: Sequence[dict[str, Any]]) -> Report:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    model: Counter[str] = Counter()
    newest: dict[str, int] = {}
    fresh: dict[str, list[float]] = defaultdict(list)
    for summary in summaries:
        for table, number in summary["changes"].items():
            counts[table]["indexed"] += number
            fresh[table] += summary["freshness_ms"][table]
            newest[table] = max(newest.get(table, 0), summary["newest_commit_us"][table])
        model.update(summary["model"])
        texts, embedded = summary["counts"].get("texts", 0), summary["counts"].get("texts embedded", 0)
        model.update(cache_hits=texts - embedded, cache_misses=embedded)
    return Report(counts, model, newest, fresh)

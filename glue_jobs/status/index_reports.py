"""The driver's part of `index_documents`: adds up workers' reports, fills the embedding cache, maintains the stores."""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from embeddings.vectors import is_usable
from glue_jobs.operations.reject_breaker import admit_indexed
from glue_jobs.runtime import Periodic, Report, StoresAsOf
from indexing.versions.every_version import each_written
from lake import embedding_cache
from lake.rejects import append_rejects
from schemas.tables import nearest

if TYPE_CHECKING:
    import pyarrow as pa

    from glue_jobs.continuous.stores import Stores
    from lake.landing.breaker import Breaker
    from sinks.protocol import MaintainedStore, Sink, Store, StoredVectors

_LOG = logging.getLogger(__name__)
_OVERLAP_US = 3600 * 1_000_000
"""A vector reaches the cache seconds after its store, unless its driver died; then no newer vector of that driver did. The
hour allows for a second driver of the same pipeline, and for clock skew."""

PROGRESS_SECONDS = 1.0
"""How often each store's as-of time is written to it; not by a run of some tables, which lacks the others' times."""
SWEEP_SECONDS = 600.0


class IndexReports:
    """Adds up the workers' counts, appends their new vectors to the cache and their rejects to the lake.

    Vectors that a crash kept from the cache are in the stores: `catch_up` copies them at the next start, so that the lake
    can fill any store without the model (I13). A vector may be appended twice; the copies are equal.
    """

    def __init__(
        self,
        lake: str,
        sinks: Sequence[Sink],
        sources: Sequence[str],
        stores: Stores | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        """Take the lake's path, the open stores, the sources that fill them, the state of the stores, and what stops the job."""
        self._stores = stores
        self._breaker = breaker
        self._lake = lake
        self._sinks = sinks
        self.as_of = {source: StoresAsOf(sink.name for sink in sinks) for source in sources}
        """By source: the as-of time of each store."""
        self._reported_us: Counter[str] = Counter()
        self._vectors: dict[str, dict[str, bytes]] = defaultdict(dict)
        """By the model's fingerprint, by content hash."""
        self._absent: set[tuple[str, str]] = set()
        """Tables and columns that were logged as missing already."""
        self._lock = threading.Lock()
        self._in_use = {sink.name: threading.Lock() for sink in sinks}
        """Keep the periodic works from using a store's connections at once."""

    def catch_up(self) -> None:
        """Append recent vectors that the stores have and the cache lacks: from an hour before its newest."""
        for store in self._sinks:
            for sink in each_written(store) if self._is_ready(store) else ():
                self._catch_up(sink)
        self.flush()

    def _catch_up(self, sink: StoredVectors) -> None:
        since_us = max(0, embedding_cache.newest_us(self._lake, sink.fingerprint) - _OVERLAP_US)
        cached = embedding_cache.hashes(self._lake, sink.fingerprint, since_us)
        for content_hash, vector in sink.vectors_since(since_us):
            if content_hash not in cached and is_usable(vector):
                self._vectors[sink.fingerprint][content_hash] = np.asarray(vector, "<f4").tobytes()

    def take(self, rows: pa.Table) -> Report:
        """Read the rows of one micro-batch (REPORT_COLUMNS). Raises StoppedError where too many of its documents are rejects."""
        table = rows.to_pylist()
        with self._lock:
            for row in table:
                if row["content_hash"]:
                    self._vectors[row["fingerprint"]][row["content_hash"]] = row["embedding"]
        rejects = [row for row in table if row["stage"]]
        for stage in sorted({row["stage"] for row in rejects}):
            append_rejects(self._lake, [row for row in rejects if row["stage"] == stage], stage=stage)
        summaries = [json.loads(row["summary"]) for row in table if row["summary"]]
        if self._breaker is not None:
            admit_indexed(self._breaker, rejects, summaries)
        report = _report(summaries)
        self._warn_of_absent(summaries)
        return report

    def periodic(self, sink: Sink, *, progress: bool) -> list[Periodic]:
        """The periodic works of one store; a slow store delays no other."""
        progress_work = [Periodic(f"progress of {sink.name}", partial(self.note_progress, sink), PROGRESS_SECONDS)]
        return [
            *(progress_work if progress else ()),
            Periodic(f"sweep of {sink.name}", partial(self.sweep, sink), SWEEP_SECONDS),
        ]

    def note_progress(self, sink: MaintainedStore) -> None:
        """Write a store's as-of time to it: that of the source that is furthest behind in it."""
        as_of_us = min((as_of.stores[sink.name].at_us for as_of in self.as_of.values()), default=0)
        if as_of_us > self._reported_us[sink.name] and self._is_ready(sink):
            with self._in_use[sink.name]:
                sink.note_progress(as_of_us)
            self._reported_us[sink.name] = as_of_us

    def flush(self) -> None:
        """Append the new vectors, in one commit for each model; a failed append is retried with the next."""
        with self._lock:
            waiting = sorted(self._vectors)
        for fingerprint in waiting:
            with self._lock:
                vectors = self._vectors.pop(fingerprint, {})
            try:
                if vectors:
                    embedding_cache.append(self._lake, fingerprint, vectors)
            except BaseException:
                with self._lock:
                    self._vectors[fingerprint] = vectors | self._vectors[fingerprint]
                raise

    def sweep(self, store: Sink) -> None:
        """Let a store remove rows that no reader sees."""
        if self._is_ready(store):
            with self._in_use[store.name]:
                for sink in each_written(store):
                    sink.sweep()

    def _is_ready(self, sink: Store) -> bool:
        """Whether a store answers and is not behind."""
        return self._stores is None or sink.name not in self._stores.unready

    def _warn_of_absent(self, summaries: Sequence[dict[str, Any]]) -> None:
        """Log once a column that a document names and complete rows do not have."""
        for table, (_, absent, columns) in chain.from_iterable(summary["whole_rows"].items() for summary in summaries):
            for column in absent:
                if (table, column) not in self._absent:
                    self._absent.add((table, column))
                    context = {"table": table, "column": column, "near": nearest(column, columns)}
                    _LOG.warning("complete rows lack a document's column", extra={"context": context})


def _report(summaries: Sequence[dict[str, Any]]) -> Report:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    model: Counter[str] = Counter()
    reached: dict[str, int] = {}
    fresh: dict[str, list[float]] = defaultdict(list)
    missing: dict[str, tuple[str, tuple[str, ...]]] = {}
    for summary in summaries:
        for table, number in summary["changes"].items():
            counts[table]["indexed"] += number
            fresh[table] += summary["freshness_ms"][table]
        for place, newest in summary["reached_us"].items():
            reached[place] = max(reached.get(place, 0), newest)
        model.update(summary["model"])
        texts, embedded = summary["counts"].get("texts", 0), summary["counts"].get("texts embedded", 0)
        model.update(cache_hits=texts - embedded, cache_misses=embedded)
        for table, (sequence, absent, _) in summary["whole_rows"].items():
            missing[table] = max(missing.get(table, ("", ())), (sequence, tuple(absent)))
    return Report(counts, model, reached, fresh, missing)

"""What the driver of `index_documents` does with the answers of its workers."""

from __future__ import annotations

import copy
import json
import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from embeddings.vectors import is_usable
from glue_jobs.runtime import AsOf, Report
from lake import embedding_cache
from lake.rejects import append_rejects
from schemas.errors import UnavailableError
from schemas.tables import nearest
from sinks.every_generation import each_written
from sinks.several import Attempt, AwayError, Missed

if TYPE_CHECKING:
    import pyarrow as pa

    from glue_jobs.runtime.set_aside import SetAside
    from sinks.protocol import Sink

_LOG = logging.getLogger(__name__)
_OVERLAP_US = 3600 * 1_000_000
"""A vector reaches the cache seconds after its store, unless its driver died; then nothing newer of that driver did. The
hour is for a second driver of the same pipeline, and for clocks that differ."""
SILENT_SECONDS = 30.0
"""After this time a store that answers nobody keeps the work on the others waiting no longer."""


class IndexReports:
    """Adds up the workers' counts, sends their new vectors to the cache and their rejects to the lake.

    Vectors that a crash kept from the cache are in the stores: `catch_up` takes them from there at the next start, so
    the lake can fill any store without the model (I13). A vector may be appended twice; readers take either.
    """

    def __init__(self, lake: str, sinks: Sequence[Sink], sources: Sequence[str], aside: SetAside | None = None) -> None:
        """Take the lake's path, the stores, and the names of the sources that fill them."""
        self._aside = aside
        self._lake = lake
        self._sinks = sinks
        self.as_of = {source: AsOf() for source in sources}
        """What the stores show of each source."""
        self._noted_us: Counter[str] = Counter()
        self._vectors: dict[str, dict[str, bytes]] = defaultdict(dict)
        """By the model's fingerprint, by content hash."""
        self._absent: set[tuple[str, str]] = set()
        """Tables and columns that were logged as missing."""
        self._lock = threading.Lock()
        self._one_at_a_time = threading.Lock()
        """Of the periodic works that use the stores' connections."""

    def catch_up(self) -> None:
        """Append the vectors that the stores hold and the cache lacks: those of the time around its newest and since."""
        for store in self._in_step():
            for sink in each_written(store):
                self._catch_up(sink)
        self.flush()

    def _catch_up(self, sink: Sink) -> None:
        since_us = max(0, embedding_cache.newest_us(self._lake, sink.fingerprint) - _OVERLAP_US)
        cached = embedding_cache.hashes(self._lake, sink.fingerprint, since_us)
        for content_hash, vector in sink.vectors_since(since_us):
            if content_hash not in cached and is_usable(vector):
                self._vectors[sink.fingerprint][content_hash] = np.asarray(vector, "<f4").tobytes()

    def take(self, rows: pa.Table) -> Report:
        """Read the rows of one micro-batch (REPORT_COLUMNS)."""
        table = rows.to_pylist()
        with self._lock:
            for row in table:
                if row["content_hash"]:
                    self._vectors[row["fingerprint"]][row["content_hash"]] = row["embedding"]
        for stage in sorted({row["stage"] for row in table if row["stage"]}):
            append_rejects(self._lake, [row for row in table if row["stage"] == stage], stage=stage)
        summaries = [json.loads(row["summary"]) for row in table if row["summary"]]
        self._remember_missed(summaries)
        report = _report(summaries)
        self._warn_of_absent(summaries)
        return report

    def note_progress(self) -> None:
        """Tell the stores how fresh they are: as fresh as the source that is furthest behind."""
        as_of_us = min((each.at_us for each in self.as_of.values()), default=0)

        def note(sink: Sink) -> None:
            if as_of_us > self._noted_us[sink.name]:
                sink.note_progress(as_of_us)
                self._noted_us[sink.name] = as_of_us

        self._each(note)

    def flush(self) -> None:
        """Append the vectors that have come since the last time, in one small commit for each model."""
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

    def sweep(self) -> None:
        """Let the stores remove what no reader sees."""

        def sweep(store: Sink) -> None:
            for sink in each_written(store):
                sink.sweep()

        self._each(sweep)

    def _in_step(self) -> list[Sink]:
        """The stores that lack nothing; the others are neither fresh nor, perhaps, there."""
        behind = self._aside.phases() if self._aside is not None else {}
        return [sink for sink in self._sinks if sink.name not in behind]

    def _each(self, work: Callable[[Sink], None]) -> None:
        """Work on one store after the other; one that is away keeps no other from it."""
        errors = []
        with self._one_at_a_time:
            for sink in self._in_step():
                attempt = Attempt(sink, (), lambda sink, _: work(sink), SILENT_SECONDS, tries_again=False)
                error = attempt.outcome()
                if attempt.is_left:
                    self._sinks = [copy.deepcopy(each) if each is sink else each for each in self._sinks]
                if isinstance(error, AwayError | UnavailableError):
                    errors.append(error.cause if isinstance(error, AwayError) else error)
                elif error is not None:
                    raise error
        if errors:
            raise errors[0]

    def _warn_of_absent(self, summaries: Sequence[dict[str, Any]]) -> None:
        """Log a column that a document names and whole rows do not have, once."""
        for table, (_, absent, columns) in chain.from_iterable(each["whole_rows"].items() for each in summaries):
            for column in absent:
                if (table, column) not in self._absent:
                    self._absent.add((table, column))
                    context = {"table": table, "column": column, "near": nearest(column, columns)}
                    _LOG.warning("a document's column is in no whole row", extra={"context": context})

    def _remember_missed(self, summaries: Sequence[dict[str, Any]]) -> None:
        """Before Spark commits: what a store missed is lost to it otherwise."""
        for summary in summaries:
            for store, (since, tried) in summary["missed"].items():
                assert self._aside is not None  # noqa: S101 - who sets no store aside misses nothing
                self._aside.missed(store, Missed(since, tried), summary["positions"])


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

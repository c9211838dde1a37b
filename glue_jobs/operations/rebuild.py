"""Lake → vector store: fills a store from `changes` and `embedding_cache`, without the source and mostly without the model.

It may run beside live jobs, since its writes are guarded too. It may be stopped anywhere and run again: documents that the
store has are not written again, and vectors that were computed are kept.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import astuple, dataclass, field
from functools import partial
from typing import Self

from pyspark.sql import DataFrame, SparkSession

from embeddings import EmbeddingConfig
from embeddings.udf import embed_chunks
from glue_jobs.config.pipeline import PipelineConfig
from glue_jobs.operations.lake_job import LakeJob, missing_vectors, sums
from glue_jobs.operations.ownership import owner_of
from glue_jobs.runtime.progress import OnProgress, Progress
from indexing.bulk import (
    KEPT,
    WRITTEN,
    BulkSettings,
    cached_vectors_stage,
    new_vectors_stage,
    peer_vectors_stage,
    write_stage,
)
from indexing.command_load import CommandLoad
from lake.history.states import History, keys_between
from lake.storage import kept
from sinks import SinkConfig
from transforms.documents.planning import DocumentSpec


@dataclass
class RebuildCounts:
    """What a rebuild did."""

    rows: int = 0
    written: int = 0
    from_cache: int = 0
    from_peers: int = 0
    """Vectors from peers, the pipeline's other stores."""
    texts_sent: int = 0
    """Texts sent to the model, whose vectors neither cache nor store had."""
    refused: int = 0
    """Documents that are not searchable: the model refuses one of their texts, or the store the document."""

    def __add__(self, more: Self) -> RebuildCounts:
        """Add field by field."""
        return RebuildCounts(*map(operator.add, astuple(self), astuple(more)))


@dataclass
class Rebuild:
    """Fills one store from the lake, table by table; the driver's memory does not grow with the rows."""

    spark: SparkSession
    config: PipelineConfig
    sink: SinkConfig
    embedding: EmbeddingConfig
    on_progress: OnProgress
    spans: Mapping[str, tuple[int, int]] | None = None
    """By `stream/partition`: the positions between which a row must have changed to be written; None: all rows."""
    counts: RebuildCounts = field(default_factory=RebuildCounts)

    def __post_init__(self) -> None:
        """Open the model and the cache."""
        self._lake = LakeJob(self.spark, self.config, self.embedding)

    def run(self) -> RebuildCounts:
        """Write every table that makes documents; run again, it writes only what is missing."""
        with closing(self._lake.open(self.sink)) as store, CommandLoad(store, "rebuild") as load:
            store.prepare(owner_of(self.config))
            for spec, history in self._lake.histories():
                if history.truncated:
                    store.truncate(spec.table, history.truncated)
                self._table(history, spec, load)
            load.end(lambda build: self.on_progress(store.name, "vector index", build.done, build.total))
        return self.counts

    def _table(self, history: History, spec: DocumentSpec, load: CommandLoad) -> None:
        with Progress(self._lake.spark, spec.table, self.on_progress) as progress:
            settings = partial(BulkSettings, self.sink, self.embedding, self._lake.cache, spec=spec)
            keys = None if self.spans is None else keys_between(history, self.spans)
            on_done = progress.step("fold", history.changes)
            with kept(self._lake.planned(self.sink, spec, history, on_done, keys)) as planned:
                totals = sums(planned, rows="count(*)", writes="count(_state)", texts="sum(size(missing))")
                self.counts.rows += totals["rows"]
                if totals["texts"]:
                    load.begin(totals["texts"])
                    self._vectors(planned, settings(progress.step("vectors", totals["texts"])), totals["texts"])
                todo = planned.filter("_state IS NOT NULL").select("_key", "_state")
                done = progress.step("write", totals["writes"])
                written = sums(todo.mapInArrow(write_stage(settings(done)), WRITTEN), *_column_names(WRITTEN))
        self.counts.written += written["written"]
        self.counts.refused += written["left_out"]
        self.counts.from_cache += written["cached"]
        self.counts.texts_sent += written["embedded"]

    def _vectors(self, planned: DataFrame, settings: BulkSettings, texts: int) -> None:
        """Write the store's missing vectors: from the cache, else from peers, else from the model."""
        tasks = self._lake.tasks(texts)
        cache = self._lake.cache.frame(self._lake.spark).repartition(tasks, "content_hash")
        missing = missing_vectors(planned).repartition(tasks, "content_hash").dropDuplicates(["content_hash"])
        cached = missing.select("content_hash").join(cache, "content_hash").dropDuplicates(["content_hash"])
        self.counts.from_cache += sums(cached.mapInArrow(cached_vectors_stage(settings), KEPT), "kept")["kept"]
        unknown = missing.join(cache.select("content_hash"), "content_hash", "left_anti")
        with kept(unknown) as uncached, self._after_peers(uncached, settings) as unknown:
            sent = unknown.count()
            if sent:
                texts_by_task = unknown.repartition(self._lake.tasks(sent), "chunk_text")
                embedded = texts_by_task.select(
                    "content_hash", embed_chunks(self._lake.embedder)("chunk_text").alias("result")
                )
                paid = embedded.select("content_hash", "result.embedding").mapInArrow(new_vectors_stage(settings), KEPT)
                self.counts.texts_sent += sum(sums(paid, *_column_names(KEPT)).values())

    @contextlib.contextmanager
    def _after_peers(self, unknown: DataFrame, settings: BulkSettings) -> Iterator[DataFrame]:
        """Take vectors from peers; yields the texts that no peer has."""
        peers = self._lake.peers_of(self.sink)
        if not peers.others or unknown.isEmpty():
            yield unknown
            return
        hashes = unknown.select("content_hash")
        with kept(hashes.mapInArrow(peer_vectors_stage(settings, peers), "content_hash string")) as from_peers:
            self.counts.from_peers += from_peers.count()
            yield unknown.join(from_peers, "content_hash", "left_anti")


def _column_names(columns: str) -> list[str]:
    return [column.split()[0] for column in columns.split(", ")]

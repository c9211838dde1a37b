"""Lake → vector store: `changes` and `embedding_cache` fill a store, without source and, as a rule, without model.

Beside live jobs or without them: the write is the same guarded one. Safe to stop anywhere and to run again: what the store
holds is left alone, and what was paid for is kept.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import astuple, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Self

from pyspark.sql import functions as F

from embeddings.udf import embed_chunks
from glue_jobs.operations.lake_job import FromLake, sums, then
from glue_jobs.operations.ownership import owner_of
from glue_jobs.runtime.progress import Watch
from indexing.bulk import (
    KEPT,
    PLANNED,
    WRITTEN,
    BulkSettings,
    borrow_stage,
    keep_stage,
    pay_stage,
    plan_stage,
    write_stage,
)
from lake.history.states import StateSettings, by_group, keys_between, state_stage
from lake.storage import kept

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from embeddings import EmbeddingConfig
    from glue_jobs.config.pipeline import PipelineConfig
    from glue_jobs.runtime.progress import Tell
    from lake.history.states import History
    from sinks import SinkConfig
    from transforms.documents.planning import DocumentSpec


@dataclass
class RebuildCounts:
    """What a rebuild did."""

    rows: int = 0
    written: int = 0
    from_cache: int = 0
    borrowed: int = 0
    """Vectors that only another store held."""
    texts_sent: int = 0
    """Texts that neither cache nor store held, sent to the model."""
    left_out: int = 0
    """Documents that are not found, because the model refuses a text of theirs, or the store the whole."""

    def __add__(self, more: Self) -> RebuildCounts:
        """Both together."""
        return RebuildCounts(*map(operator.add, astuple(self), astuple(more)))


@dataclass
class Rebuild:
    """Fills one store from the lake, table by table; nothing on the driver grows with the rows."""

    spark: SparkSession
    config: PipelineConfig
    sink: SinkConfig
    embedding: EmbeddingConfig
    tell: Tell
    spans: Mapping[str, tuple[int, int]] | None = None
    """Only rows are written that were changed between two positions, by `stream/partition`; None: all rows."""
    counts: RebuildCounts = field(default_factory=RebuildCounts)

    def __post_init__(self) -> None:
        """Open the lake's side."""
        self._lake = FromLake(self.spark, self.config, self.embedding)

    def run(self) -> RebuildCounts:
        """Write every table that makes documents."""
        with closing(self._lake.open(self.sink)) as store:
            store.prepare(owner_of(self.config))
            for spec, history in self._lake.histories():
                if history.truncated:
                    store.truncate(spec.table, history.truncated)
                self._table(history, spec)
        return self.counts

    def _table(self, history: History, spec: DocumentSpec) -> None:
        with Watch(self._lake.spark, spec.table, self.tell) as watch:
            settings = partial(BulkSettings, self.sink, self.embedding, self._lake.cache, spec=spec)
            fold = StateSettings(spec, self._lake.contexts, watch.step("fold", history.changes))
            stage = then(state_stage(fold), plan_stage(settings(lambda _: None)))
            keys = None if self.spans is None else keys_between(history, self.spans)
            grouped = by_group(history, self._lake.tasks(history.changes), keys)
            with kept(grouped.mapInArrow(stage, PLANNED)) as planned:
                found = sums(planned, rows="count(*)", writes="count(_state)", texts="sum(size(missing))")
                self.counts.rows += found["rows"]
                if found["texts"]:
                    self._vectors(planned, settings(watch.step("vectors", found["texts"])), found["texts"])
                todo = planned.filter("_state IS NOT NULL").select("_key", "_state")
                done = watch.step("write", found["writes"])
                written = sums(todo.mapInArrow(write_stage(settings(done)), WRITTEN), *_names(WRITTEN))
        self.counts.written += written["written"]
        self.counts.left_out += written["left_out"]
        self.counts.from_cache += written["cached"]
        self.counts.texts_sent += written["embedded"]

    def _vectors(self, planned: DataFrame, settings: BulkSettings, texts: int) -> None:
        """Give the store the vectors it lacks: from the cache where that has them, else from the model by way of it."""
        tasks = self._lake.tasks(texts)
        cache = self._lake.cache.frame(self._lake.spark).repartition(tasks, "content_hash")
        wanted = planned.select(F.explode("missing").alias("m")).select("m.*").repartition(tasks, "content_hash")
        wanted = wanted.dropDuplicates(["content_hash"])
        held = wanted.select("content_hash").join(cache, "content_hash").dropDuplicates(["content_hash"])
        self.counts.from_cache += sums(held.mapInArrow(keep_stage(settings), KEPT), "kept")["kept"]
        unknown = wanted.join(cache.select("content_hash"), "content_hash", "left_anti")
        with kept(unknown) as nowhere, self._after_borrowing(nowhere, settings) as unknown:
            sent = unknown.count()
            if sent:
                texts_by_task = unknown.repartition(self._lake.tasks(sent), "chunk_text")
                told = texts_by_task.select(
                    "content_hash", embed_chunks(self._lake.embedder)("chunk_text").alias("told")
                )
                paid = told.select("content_hash", "told.embedding").mapInArrow(pay_stage(settings), KEPT)
                self.counts.texts_sent += sum(sums(paid, *_names(KEPT)).values())

    @contextlib.contextmanager
    def _after_borrowing(self, unknown: DataFrame, settings: BulkSettings) -> Iterator[DataFrame]:
        """Ask the other stores for what the cache lacks; what is left."""
        lenders = self._lake.lent_to(self.sink)
        if not lenders.others or unknown.isEmpty():
            yield unknown
            return
        hashes = unknown.select("content_hash")
        with kept(hashes.mapInArrow(borrow_stage(settings, lenders), "content_hash string")) as lent:
            self.counts.borrowed += lent.count()
            yield unknown.join(lent, "content_hash", "left_anti")


def _names(columns: str) -> list[str]:
    return [column.split()[0] for column in columns.split(", ")]

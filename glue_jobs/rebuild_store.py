"""Lake → vector store: `changes` and `embedding_cache` fill a store, without source and, as a rule, without model.

Beside live jobs or without them: the write is the same guarded one. Safe to stop anywhere and to run again: what the store
holds is left alone, and what was paid for is kept.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from embeddings import open_embedder
from embeddings.udf import embed_chunks
from glue_jobs.config import decode_context
from glue_jobs.runtime.watch import Watch
from lake.embedding_cache import EmbeddingCache
from lake.layout import LakeLayout
from lake.states import StateSettings, by_group, history_of, state_stage
from lake.storage import kept
from sinks import open_sink
from sinks.bulk import KEPT, PLANNED, WRITTEN, BulkSettings, keep_stage, pay_stage, plan_stage, write_stage
from transforms.documents import Recipe

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from embeddings import Embedder, EmbeddingConfig
    from glue_jobs.config import PipelineConfig
    from glue_jobs.runtime.watch import Tell
    from lake.states import History
    from sinks import SinkConfig
    from sinks.bulk import Stage
    from transforms.context import DecodeContext

_ROWS_A_TASK = 4_000
_FEW_ROWS = 1_000
"""Rows, or texts, of a task where there are many, and where not every core has one: a task pays for its Python worker."""
_MAX_TASKS = 2_000
_SETTINGS = {
    # Vectors wait in batches of this size between the model's stage and the one that keeps them.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "256",
    "spark.sql.adaptive.enabled": "false",
}


@dataclass
class RebuildCounts:
    """What a rebuild did."""

    rows: int = 0
    written: int = 0
    from_cache: int = 0
    texts_sent: int = 0
    """Texts that neither cache nor store held, sent to the model."""
    left_out: int = 0
    """Documents that keep what they have, because the model refuses a text of theirs."""


@dataclass
class Rebuild:
    """Fills one store from the lake, table by table; nothing on the driver grows with the rows."""

    spark: SparkSession
    config: PipelineConfig
    sink: SinkConfig
    embedding: EmbeddingConfig
    tell: Tell
    counts: RebuildCounts = field(default_factory=RebuildCounts)

    def __post_init__(self) -> None:
        """Take a session with settings of its own."""
        self.spark = self.spark.newSession()
        for name, value in _SETTINGS.items():
            self.spark.conf.set(name, value)
        self._layout = LakeLayout(self.config.lake.path)
        self._embedder: Embedder = open_embedder(self.embedding)
        self._cache = EmbeddingCache(self.config.lake.path, self._embedder.fingerprint)
        self._contexts: Mapping[str, DecodeContext] = {
            source.name: decode_context(self.config, source.name) for source in self.config.sources
        }

    def run(self) -> RebuildCounts:
        """Write every table that makes documents."""
        store = open_sink(self.sink, self._embedder.fingerprint, self._embedder.dimensions)
        store.prepare()
        for recipe in filter(None, map(Recipe.of, self.config.tables)):
            history = history_of(self.spark, self._layout, recipe.table)
            if history is None:
                continue
            if history.truncated:
                store.truncate(recipe.table, history.truncated)
            self._table(history, recipe)
        store.close()
        return self.counts

    def _table(self, history: History, recipe: Recipe) -> None:
        with Watch(self.spark, recipe.table, self.tell) as watch:
            settings = partial(BulkSettings, recipe, self.sink, self.embedding, self._cache)
            fold = StateSettings(recipe, self._contexts, watch.step("fold", history.changes))
            stage = _then(state_stage(fold), plan_stage(settings(lambda _: None)))
            with kept(by_group(history, self._tasks(history.changes)).mapInArrow(stage, PLANNED)) as planned:
                found = _sums(planned, rows="count(*)", writes="count(_state)", texts="sum(size(missing))")
                self.counts.rows += found["rows"]
                if found["texts"]:
                    self._vectors(planned, settings(watch.step("vectors", found["texts"])), found["texts"])
                todo = planned.filter("_state IS NOT NULL").select("_key", "_state")
                done = watch.step("write", found["writes"])
                written = _sums(todo.mapInArrow(write_stage(settings(done)), WRITTEN), *_names(WRITTEN))
        self.counts.written += written["written"]
        self.counts.left_out += written["left_out"]
        self.counts.from_cache += written["cached"]
        self.counts.texts_sent += written["embedded"]

    def _vectors(self, planned: DataFrame, settings: BulkSettings, texts: int) -> None:
        """Give the store the vectors it lacks: from the cache where that has them, else from the model by way of it."""
        tasks = self._tasks(texts)
        cache = self._cache.frame(self.spark).repartition(tasks, "content_hash")
        wanted = planned.select(F.explode("missing").alias("m")).select("m.*").repartition(tasks, "content_hash")
        wanted = wanted.dropDuplicates(["content_hash"])
        held = wanted.select("content_hash").join(cache, "content_hash").dropDuplicates(["content_hash"])
        self.counts.from_cache += _sums(held.mapInArrow(keep_stage(settings), KEPT), "kept")["kept"]
        with kept(wanted.join(cache.select("content_hash"), "content_hash", "left_anti")) as unknown:
            sent = unknown.count()
            if sent:
                texts_by_task = unknown.repartition(self._tasks(sent), "chunk_text")
                told = texts_by_task.select("content_hash", embed_chunks(self._embedder)("chunk_text").alias("told"))
                paid = told.select("content_hash", "told.embedding").mapInArrow(pay_stage(settings), KEPT)
                self.counts.texts_sent += sum(_sums(paid, *_names(KEPT)).values())

    def _tasks(self, rows: int) -> int:
        few = min(self.spark.sparkContext.defaultParallelism, math.ceil(rows / _FEW_ROWS))
        return max(1, few, min(_MAX_TASKS, math.ceil(rows / _ROWS_A_TASK)))


def _then(one: Stage, other: Stage) -> Stage:
    """Two stages in one worker."""
    return lambda batches: other(one(batches))


def _names(columns: str) -> list[str]:
    return [column.split()[0] for column in columns.split(", ")]


def _sums(frame: DataFrame, *names: str, **expressions: str) -> Counter[str]:
    """Add columns up, or evaluate other aggregates, in one action."""
    wanted = {name: f"sum({name})" for name in names} | expressions
    row = frame.agg(*(F.expr(each).alias(name) for name, each in wanted.items())).first()
    return Counter({name: row[name] or 0 for name in wanted} if row else {})

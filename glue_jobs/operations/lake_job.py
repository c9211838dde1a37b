"""What Spark jobs from the lake to a store share: a session of their own, the model, the embedding cache, the histories."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from embeddings import Embedder, EmbeddingConfig, open_embedder
from glue_jobs.config.pipeline import PipelineConfig, decode_contexts
from indexing.bulk import PLANNED, BulkSettings, Stage, plan_stage
from indexing.peer_vectors import CachedPeerVectors
from lake.embedding_cache import EmbeddingCache
from lake.history.states import History, StateSettings, by_group, history_of, state_stage
from lake.layout import LakeLayout
from lake.storage import open_table
from sinks import SinkConfig, open_sink
from sinks.protocol import Sink
from transforms.context import DecodeContext
from transforms.documents.planning import DocumentSpec

type OnDone = Callable[[int], None]
"""Called with a number of rows that are done."""

_ROWS_A_TASK = 4_000
_FEW_ROWS = 1_000
"""Rows (or texts) of a task: of many rows, and of few, where more tasks would cost more Python workers than they gain."""
_MAX_TASKS = 2_000
_SETTINGS = {
    # Bounds the vectors in memory between the stage of the model and the one that stores them.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "256",
    "spark.sql.adaptive.enabled": "false",
}


@dataclass
class LakeJob:
    """The shared state of one job."""

    spark: SparkSession
    config: PipelineConfig
    embedding: EmbeddingConfig
    layout: LakeLayout = field(init=False)
    embedder: Embedder = field(init=False)
    cache: EmbeddingCache = field(init=False)
    contexts: Mapping[str, DecodeContext] = field(init=False)

    def __post_init__(self) -> None:
        """Open a session with settings of its own."""
        self.spark = self.spark.newSession()
        for name, value in _SETTINGS.items():
            self.spark.conf.set(name, value)
        self.layout = LakeLayout(self.config.lake.path)
        self.embedder = open_embedder(self.embedding)
        self.cache = EmbeddingCache(self.config.lake.path, self.embedder.fingerprint)
        self.contexts = decode_contexts(self.config)

    def open(self, sink: SinkConfig) -> Sink:
        """Open a store for this model."""
        return open_sink(sink, self.embedder.fingerprint, self.embedder.dimensions)

    def peers_of(self, sink: SinkConfig) -> CachedPeerVectors:
        """The embedding cache and, for vectors that it lacks, the peers: the pipeline's other stores."""
        others = tuple(other for other in self.config.sinks if other.name != sink.name)
        return CachedPeerVectors(self.cache, others, self.embedder.fingerprint, self.embedder.dimensions)

    def version(self) -> int | None:
        """The newest version of `changes`; None when nothing was ever landed."""
        changes = open_table(self.layout.path("changes"))
        return None if changes is None else changes.version()

    def histories(self) -> Iterator[tuple[DocumentSpec, History]]:
        """The current history of every table that makes documents and has landed records."""
        for spec in self.config.document_specs.values():
            history = history_of(self.spark, self.layout, spec.table)
            if history is not None:
                yield spec.within(self.embedder.max_tokens), history

    def planned(
        self, sink: SinkConfig, spec: DocumentSpec, history: History, on_done: OnDone, keys: DataFrame | None = None
    ) -> DataFrame:
        """The documents to write into a store (`indexing.bulk.PLANNED`), of all rows of a table or of `keys`; not evaluated."""
        settings = BulkSettings(sink, self.embedding, self.cache, lambda _: None, spec)
        stage = then(state_stage(StateSettings(spec, self.contexts, on_done)), plan_stage(settings))
        return by_group(history, self.tasks(history.changes), keys).mapInArrow(stage, PLANNED)

    def tasks(self, rows: int) -> int:
        """The number of tasks for a number of rows."""
        few = min(self.spark.sparkContext.defaultParallelism, math.ceil(rows / _FEW_ROWS))
        return max(1, few, min(_MAX_TASKS, math.ceil(rows / _ROWS_A_TASK)))


def missing_vectors(planned: DataFrame) -> DataFrame:
    """The chunk texts of planned documents whose vectors the store lacks, by content hash; a text may be there repeatedly."""
    return planned.select(F.explode("missing").alias("m")).select("m.*")


def then(one: Stage, other: Stage) -> Stage:
    """Chain two stages in one Python worker."""
    return lambda batches: other(one(batches))


def sums(frame: DataFrame, *names: str, **expressions: str) -> Counter[str]:
    """Sum columns and evaluate other aggregates in one action."""
    aggregates = {name: f"sum({name})" for name in names} | expressions
    row = frame.agg(*(F.expr(expression).alias(name) for name, expression in aggregates.items())).first()
    return Counter({name: row[name] or 0 for name in aggregates} if row else {})

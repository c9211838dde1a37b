"""Estimates a migration to another model: texts, tokens, dollars and time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import reduce

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from embeddings import EmbeddingConfig, texts_at_once
from embeddings.prices import Usage, price_of
from glue_jobs.config.pipeline import PipelineConfig
from glue_jobs.operations.lake_job import LakeJob, then
from glue_jobs.runtime.progress import OnProgress, Progress
from indexing.bulk import TEXTS, text_stage
from lake.history.states import StateSettings, by_group, state_stage

_SAMPLE_REQUESTS = 3
"""Sampled texts as a multiple of those in flight at once, since the first requests open connections."""
_SAMPLE_TEXTS = 512


@dataclass(frozen=True, slots=True)
class MigrationPlan:
    """The estimate; each text is embedded once for all stores."""

    texts: int
    """Distinct chunk texts of the lake's rows."""
    cached: int
    """Texts whose vector by that model is in the embedding cache."""
    tokens: int
    """Tokens of the others: estimated, scaled by the model's own counts in the sample."""
    usd: float | None
    """None for a model without a known price."""
    sampled: int
    """Texts that were embedded to measure the rate; their vectors are kept in the cache."""
    texts_per_second: float | None
    """Of one process, on these texts; None when there is nothing to embed."""
    seconds: float | None
    """For the remaining texts, at that rate."""


def plan(spark: SparkSession, config: PipelineConfig, to: EmbeddingConfig, on_progress: OnProgress) -> MigrationPlan:
    """Fold the lake's rows, count their texts, and measure the model on a sample, whose vectors are cached."""
    lake = LakeJob(spark, config, to)
    texts = _texts(lake, on_progress)
    number = texts.count()
    cached = lake.cache.frame(lake.spark).select("content_hash").distinct()
    lacking = texts.join(cached, "content_hash", "left_anti").localCheckpoint()
    totals = lacking.agg(F.count("*").alias("texts"), F.sum("tokens").alias("tokens")).first()
    remaining, estimated = (totals["texts"], totals["tokens"] or 0) if totals else (0, 0)
    if not remaining:
        return MigrationPlan(number, number, 0, 0.0, 0, None, 0.0 if number else None)
    sampled, rate, factor = _measured(lake, lacking)
    counted = round(estimated * factor)
    price = price_of(getattr(to, "model", ""))
    usd = None if price is None else round(price.of(Usage(counted), requests=0), 6)
    seconds = round((remaining - sampled) / rate, 1) if rate else None
    return MigrationPlan(number, number - remaining, counted, usd, sampled, round(rate, 1), seconds)


def _texts(lake: LakeJob, on_progress: OnProgress) -> DataFrame:
    frames = [lake.spark.createDataFrame([], TEXTS)]
    for spec, history in lake.histories():
        with Progress(lake.spark, spec.table, on_progress) as progress:
            fold = StateSettings(spec, lake.contexts, progress.step("texts", history.changes))
            stage = then(state_stage(fold), text_stage(spec, history.truncated))
            frame = by_group(history, lake.tasks(history.changes)).mapInArrow(stage, TEXTS)
            frames.append(frame.dropDuplicates(["content_hash"]).localCheckpoint())
    return reduce(lambda one, other: one.union(other), frames).dropDuplicates(["content_hash"])


def _measured(lake: LakeJob, lacking: DataFrame) -> tuple[int, float, float]:
    """The number of sampled texts, texts a second, and the ratio of the model's token count to our estimate."""
    embedder = lake.embedder
    most = min(_SAMPLE_TEXTS, _SAMPLE_REQUESTS * texts_at_once(lake.embedding, embedder))
    rows = lacking.limit(most).collect()
    embedder.check()  # opens the connection
    before, began = embedder.counts(), time.monotonic()
    vectors = embedder.embed_documents([row["chunk_text"] for row in rows])
    took = time.monotonic() - began
    by_hash = zip((row["content_hash"] for row in rows), vectors, strict=True)
    lake.cache.add({name: vector for name, vector in by_hash if isinstance(vector, np.ndarray)})
    counted = (embedder.counts() - before).tokens
    estimated = sum(row["tokens"] for row in rows)
    return len(rows), len(rows) / max(took, 1e-6), counted / estimated if counted else 1.0

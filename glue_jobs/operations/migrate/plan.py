"""What moving the stores to another model will take: texts, tokens, dollars and time, before anything is done."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql import functions as F

from embeddings import texts_at_once
from glue_jobs.operations.lake_job import FromLake, then
from glue_jobs.operations.prices import price_of
from glue_jobs.runtime.progress import Watch
from indexing.bulk import TEXTS, text_stage
from lake.history.states import StateSettings, by_group, state_stage

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from embeddings import EmbeddingConfig
    from glue_jobs.config.pipeline import PipelineConfig
    from glue_jobs.runtime.progress import Tell

_SAMPLE_REQUESTS = 3
"""Times what is in flight at once: the first requests open connections."""
_SAMPLE_TEXTS = 512


@dataclass(frozen=True, slots=True)
class MigrationPlan:
    """What is to be embedded, each text once for all stores."""

    texts: int
    """Distinct chunk texts that the lake's rows have now."""
    cached: int
    """Those of them whose vector by that model was paid for before."""
    tokens: int
    """Of the others: estimated, or as the model counted them in the sample."""
    usd: float | None
    """None for a model whose price is not known here."""
    sampled: int
    """Texts that were embedded to measure the rate; their vectors are kept in the cache."""
    texts_per_second: float | None
    """By one process, on these texts; None when there is nothing to embed."""
    seconds: float | None
    """For the texts that are left, at that rate."""


def plan(spark: SparkSession, config: PipelineConfig, to: EmbeddingConfig, tell: Tell) -> MigrationPlan:
    """Fold the lake's rows, count their texts, and measure the model on some of them."""
    lake = FromLake(spark, config, to)
    texts = _texts(lake, tell)
    number = texts.count()
    cached = lake.cache.frame(lake.spark).select("content_hash").distinct()
    lacking = texts.join(cached, "content_hash", "left_anti").localCheckpoint()
    totals = lacking.agg(F.count("*").alias("texts"), F.sum("tokens").alias("tokens")).first()
    left, estimated = (totals["texts"], totals["tokens"] or 0) if totals else (0, 0)
    if not left:
        return MigrationPlan(number, number, 0, 0.0, 0, None, 0.0 if number else None)
    sampled, rate, factor = _measured(lake, lacking)
    counted = round(estimated * factor)
    price = price_of(getattr(to, "model", ""))
    usd = None if price is None else round(counted / 1000 * price, 6)
    seconds = round((left - sampled) / rate, 1) if rate else None
    return MigrationPlan(number, number - left, counted, usd, sampled, round(rate, 1), seconds)


def _texts(lake: FromLake, tell: Tell) -> DataFrame:
    found = [lake.spark.createDataFrame([], TEXTS)]
    for spec, history in lake.histories():
        with Watch(lake.spark, spec.table, tell) as watch:
            fold = StateSettings(spec, lake.contexts, watch.step("texts", history.changes))
            stage = then(state_stage(fold), text_stage(spec, history.truncated))
            frame = by_group(history, lake.tasks(history.changes)).mapInArrow(stage, TEXTS)
            found.append(frame.dropDuplicates(["content_hash"]).localCheckpoint())
    return reduce(lambda one, other: one.union(other), found).dropDuplicates(["content_hash"])


def _measured(lake: FromLake, lacking: DataFrame) -> tuple[int, float, float]:
    """How many texts were embedded, how many a second, and the model's tokens by ours."""
    embedder = lake.embedder
    most = min(_SAMPLE_TEXTS, _SAMPLE_REQUESTS * texts_at_once(lake.embedding, embedder))
    rows = lacking.limit(most).collect()
    embedder.check()  # opens the connection
    before, began = embedder.counts(), time.monotonic()
    answers = embedder.embed_documents([row["chunk_text"] for row in rows])
    took = time.monotonic() - began
    told = zip((row["content_hash"] for row in rows), answers, strict=True)
    lake.cache.add({name: vector for name, vector in told if isinstance(vector, np.ndarray)})
    counted = (embedder.counts() - before).tokens
    estimated = sum(row["tokens"] for row in rows)
    return len(rows), len(rows) / max(took, 1e-6), counted / estimated if counted else 1.0

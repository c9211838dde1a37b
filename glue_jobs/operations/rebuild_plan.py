"""Estimates a rebuild: documents, chunks, tokens and dollars, before a changed text is paid for."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from embeddings.prices import Usage, price_of
from glue_jobs.operations.lake_job import LakeJob, missing_vectors, sums
from glue_jobs.operations.ownership import owner_of
from glue_jobs.runtime.progress import Progress
from lake.storage import kept
from transforms.documents.chunking import BYTES_A_TOKEN

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from embeddings import EmbeddingConfig
    from glue_jobs.config.pipeline import PipelineConfig
    from glue_jobs.runtime.progress import OnProgress
    from sinks import SinkConfig


@dataclass(frozen=True, slots=True)
class RebuildPlan:
    """What a rebuild of one table would do."""

    documents: int
    """Documents to write: missing ones, and those of another template, chunking, language or metadata."""
    chunks: int
    """Distinct chunk texts whose vector the store lacks."""
    cached: int
    """Chunks of them whose vector is in the embedding cache."""
    tokens: int
    """Estimated tokens of the others. Vectors that another store of the pipeline has are not subtracted."""
    usd: float | None
    """None for a model without a known price."""

    @property
    def sentence(self) -> str:
        """The same for people."""
        price = "at a price that is not known here" if self.usd is None else f"for about ${self.usd:.4f}"
        return (
            f"{self.documents} documents to write, {self.chunks} chunks without a vector in the store, {self.cached} of them in"
            f" the cache; the others: {self.tokens} tokens {price}"
        )


def plan(
    spark: SparkSession, config: PipelineConfig, sink: SinkConfig, embedding: EmbeddingConfig, on_progress: OnProgress
) -> dict[str, RebuildPlan]:
    """The plan of each table that makes documents; no document is written and no model asked."""
    lake = LakeJob(spark, config, embedding)
    price, plans = price_of(getattr(embedding, "model", "")), dict[str, RebuildPlan]()
    cache = lake.cache.frame(lake.spark).select("content_hash").distinct()
    with closing(lake.open(sink)) as store:
        store.prepare(owner_of(config))
    for spec, history in lake.histories():
        with (
            Progress(lake.spark, spec.table, on_progress) as progress,
            kept(lake.planned(sink, spec, history, progress.step("fold", history.changes))) as planned,
        ):
            documents = sums(planned, documents="count(_state)")["documents"]
            missing = missing_vectors(planned).dropDuplicates(["content_hash"])
            tokens = F.ceil(F.octet_length("chunk_text") / BYTES_A_TOKEN)
            sizes = missing.select("content_hash", tokens.alias("tokens"))
            with kept(sizes) as chunks:
                number = chunks.count()
                unknown = chunks.join(cache, "content_hash", "left_anti")
                left = sums(unknown, "tokens", chunks="count(*)")
        usd = None if price is None else round(price.of(Usage(int(left["tokens"])), 0), 6)
        plans[spec.table] = RebuildPlan(documents, number, number - left["chunks"], int(left["tokens"]), usd)
    return plans

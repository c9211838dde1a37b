"""Stream → vector stores, as fast as it can: one narrow stage, no shuffle, nothing on the driver that grows.

spark-submit glue_jobs/index_documents.py --config pipeline.yaml
"""

from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING

from embeddings import open_embedder
from glue_jobs.config import decode_context
from glue_jobs.index_reports import IndexReports
from glue_jobs.outdated import warn_of_outdated
from glue_jobs.runtime import JobContext, Periodic, Query, Stage, real_time, run_job
from glue_jobs.stores import EVERY_SECONDS, Stores
from sinks.index_partition import IndexSettings, IndexStage, index_groups
from sources import OpenBatches, SourceConfig, idle_note, read_stream, real_time_tasks
from transforms.documents import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

FLUSH_SECONDS = 5.0
"""How often new vectors go to the embedding cache: a Delta commit costs 0.25 s, so they go few at a time."""


def plan(context: JobContext) -> list[Query | Periodic]:
    """Prepare the stores, and index each source by a query of its own."""
    config = context.config
    recipes = {table.table: recipe for table in config.tables if (recipe := Recipe.of(table))}
    if not recipes or not config.sinks or config.embedding is None:
        return []
    embedder = open_embedder(config.embedding)
    stores = Stores(context, embedder.fingerprint, embedder.dimensions)
    sinks = stores.prepared()
    warn_of_outdated(config, sinks)
    reports = IndexReports(config.lake.path, sinks, [source.name for source in config.sources], stores)
    reports.catch_up()
    staying = real_time.fitting(context, {s.name: real_time_tasks(s) for s in config.sources if config.real_time})
    shared = (context, recipes, reports, stores)
    queries = [_query(*shared, source, stays=source.name in staying) for source in config.sources]
    return [
        *queries,
        Periodic("embedding_cache", reports.flush, FLUSH_SECONDS),
        *(each for sink in sinks for each in reports.periodic(sink, progress=not context.some_tables)),
        Periodic("stores", stores.look, EVERY_SECONDS),
        Periodic("backfill", stores.backfill, EVERY_SECONDS),
    ]


def _query(
    context: JobContext, recipes: Mapping[str, Recipe], reports: IndexReports, stores: Stores,
    source: SourceConfig, *, stays: bool,
) -> Query:  # fmt: skip
    config, name = context.config, f"index_{source.name}"
    assert config.embedding is not None  # noqa: S101 - `plan` has seen to it
    decoding = decode_context(config, source.name)
    settings = IndexSettings(uuid.uuid4().hex, decoding, recipes, config.sinks, config.embedding)
    batches, take, checkpoint = IndexStage(settings), reports.take, context.checkpoint(name)
    spark = real_time.session(context.spark) if stays else context.spark
    idle = idle_note(source, checkpoint, stays=stays)
    return Query(
        name,
        stores.reading(source, partial(read_stream, spark, source, checkpoint, idle=idle)),
        lambda batch: take(batches(batch.frame)),
        pool="index",
        stage=Stage(index_groups(settings), take, idle if isinstance(idle, OpenBatches) else None) if stays else None,
        as_of=reports.as_of[source.name],
        empty_us=idle.empty_us if idle else None,
    )


if __name__ == "__main__":
    run_job(plan)

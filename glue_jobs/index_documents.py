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
from glue_jobs.take_back import EVERY_SECONDS, TakeBack
from sinks.index_partition import IndexSettings, IndexStage, index_groups
from sources import OpenBatches, SourceConfig, idle_note, read_stream, real_time_tasks
from transforms.documents import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

FLUSH_SECONDS = 5.0
"""How often new vectors go to the embedding cache: a Delta commit costs 0.25 s, so they go few at a time."""
PROGRESS_SECONDS = 1.0
"""How often the stores are told how fresh they are; a run of some tables knows nothing of the others."""
SWEEP_SECONDS = 600.0


def plan(context: JobContext) -> list[Query | Periodic]:
    """Prepare the stores, and index each source by a query of its own."""
    config = context.config
    recipes = {table.table: recipe for table in config.tables if (recipe := Recipe.of(table))}
    if not recipes or not config.sinks or config.embedding is None:
        return []
    embedder = open_embedder(config.embedding)
    take_back = TakeBack(context, embedder.fingerprint, embedder.dimensions)
    sinks = take_back.prepared()
    warn_of_outdated(config, sinks)
    reports = IndexReports(config.lake.path, sinks, [source.name for source in config.sources], take_back.aside)
    reports.catch_up()
    staying = real_time.fitting(context, {s.name: real_time_tasks(s) for s in config.sources if config.real_time})
    shared = (context, recipes, reports, take_back)
    queries = [_query(*shared, source, stays=source.name in staying) for source in config.sources]
    return [
        *queries,
        Periodic("embedding_cache", reports.flush, FLUSH_SECONDS),
        *([] if context.some_tables else [Periodic("progress", reports.note_progress, PROGRESS_SECONDS)]),
        Periodic("sweep", reports.sweep, SWEEP_SECONDS),
        Periodic("take_back", take_back.run, EVERY_SECONDS),
    ]


def _query(
    context: JobContext, recipes: Mapping[str, Recipe], reports: IndexReports, take_back: TakeBack,
    source: SourceConfig, *, stays: bool,
) -> Query:  # fmt: skip
    config, name = context.config, f"index_{source.name}"
    assert config.embedding is not None  # noqa: S101 - `plan` has seen to it
    decoding, phases = decode_context(config, source.name), take_back.aside.phases
    settings = IndexSettings(uuid.uuid4().hex, decoding, recipes, config.sinks, config.embedding, phases)
    batches, take, checkpoint = IndexStage(settings), reports.take, context.checkpoint(name)
    spark = real_time.session(context.spark) if stays else context.spark
    idle = idle_note(source, checkpoint, stays=stays)
    return Query(
        name,
        take_back.reading(source, partial(read_stream, spark, source, checkpoint, idle=idle)),
        lambda batch: take(batches(batch.frame)),
        pool="index",
        stage=Stage(index_groups(settings), take, idle if isinstance(idle, OpenBatches) else None) if stays else None,
        as_of=reports.as_of[source.name],
        empty_us=idle.empty_us if idle else None,
    )


if __name__ == "__main__":
    run_job(plan)

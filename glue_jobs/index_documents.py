"""Stream → vector stores, as fast as it can: one narrow stage, no shuffle, nothing on the driver that grows.

spark-submit glue_jobs/index_documents.py --config pipeline.yaml
"""

from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING

from embeddings import open_embedder
from glue_jobs.config import decode_context
from glue_jobs.index_report import IndexReports
from glue_jobs.runtime import Batch, JobContext, Periodic, Query, Report, run_job
from sinks import open_sink
from sinks.index_partition import IndexSettings, IndexStage
from sources import idle_note, read_stream
from transforms.documents import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable

FLUSH_SECONDS = 5.0
"""How often new vectors go to the embedding cache: a Delta commit costs 0.25 s, so they go few at a time."""
PROGRESS_SECONDS = 1.0
"""How often the stores are told how fresh they are."""
SWEEP_SECONDS = 600.0


def plan(context: JobContext) -> list[Query | Periodic]:
    """Prepare the stores, and index each source by a query of its own."""
    config = context.config
    recipes = {table.table: recipe for table in config.tables if (recipe := Recipe.of(table))}
    if not recipes or not config.sinks or config.embedding is None:
        return []
    embedder = open_embedder(config.embedding)
    sinks = [open_sink(sink, embedder.fingerprint, embedder.dimensions) for sink in config.sinks]
    for sink in sinks:
        sink.prepare()
    reports = IndexReports(config.lake.path, embedder.fingerprint, sinks, [source.name for source in config.sources])
    reports.catch_up()
    queries: list[Query | Periodic] = []
    for source in config.sources:
        idle = idle_note(source)
        settings = IndexSettings(
            uuid.uuid4().hex, decode_context(config, source.name), recipes, config.sinks, config.embedding
        )
        name = f"index_{source.name}"
        checkpoint = context.checkpoint(name)
        read = partial(read_stream, context.spark, source, checkpoint, drain=context.available_now, idle=idle)
        write = _write(settings, reports, source.name)
        on_idle = partial(reports.idle, source.name)
        idle_as_of = idle.as_of_us if idle else None
        queries.append(Query(name, read, write, pool="index", on_idle=on_idle, idle_as_of=idle_as_of))
    return [
        *queries,
        Periodic("embedding_cache", reports.flush, FLUSH_SECONDS),
        Periodic("progress", reports.note_progress, PROGRESS_SECONDS),
        Periodic("sweep", reports.sweep, SWEEP_SECONDS),
    ]


def _write(settings: IndexSettings, reports: IndexReports, source: str) -> Callable[[Batch], Report]:
    stage = IndexStage(settings)

    def write(batch: Batch) -> Report:
        return reports.take(source, stage(batch.frame))

    return write


if __name__ == "__main__":
    run_job(plan)

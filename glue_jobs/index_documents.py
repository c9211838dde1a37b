"""Stream → vector stores, with the least latency: by long-lived readers, or in micro-batches.

spark-submit glue_jobs/index_documents.py --config pipeline.yaml
"""

from __future__ import annotations

from embeddings import open_embedder
from glue_jobs.continuous.bulk_loads import BulkLoads
from glue_jobs.continuous.query import ReaderQuery, has_readers
from glue_jobs.continuous.stores import EVERY_SECONDS, Stores
from glue_jobs.operations.reject_breaker import breaker_of
from glue_jobs.runtime import JobContext, Periodic, Query, run_job
from glue_jobs.runtime.batch_query import BatchQuery
from glue_jobs.status.index_reports import IndexReports
from glue_jobs.status.outdated import warn_of_outdated
from lake.landing.breaker import INDEXING

FLUSH_SECONDS = 5.0
"""How often new vectors are committed to the embedding cache; a Delta commit takes 0.25 s."""


def plan(context: JobContext) -> list[Query | Periodic]:
    """Prepare the stores, and index each source by a query of its own."""
    config = context.config
    specs = config.document_specs
    if not specs or not config.sinks or config.embedding is None:
        return []
    embedder = open_embedder(config.embedding)
    stores = Stores(context, embedder.fingerprint, embedder.dimensions)
    sinks = stores.prepare()
    warn_of_outdated(config, sinks)
    breaker = breaker_of(context, "index_rejects", INDEXING)
    reports = IndexReports(config.lake.path, sinks, [source.name for source in config.sources], stores, breaker)
    loads = BulkLoads(context, (embedder.fingerprint, embedder.dimensions), reports.as_of, stores)
    loads.begin(sinks)
    reports.catch_up()
    queries = [
        (ReaderQuery if has_readers(context, source) else BatchQuery)(context, source, specs, reports, stores).query()
        for source in config.sources
    ]
    return [
        *queries,
        Periodic("embedding_cache", reports.flush, FLUSH_SECONDS),
        *(work for sink in sinks for work in reports.periodic(sink, progress=not context.some_tables)),
        Periodic("stores", stores.check_away, EVERY_SECONDS),
        Periodic("backfill", stores.backfill, EVERY_SECONDS),
        Periodic("bulk_loads", loads.look, EVERY_SECONDS),
    ]


if __name__ == "__main__":
    run_job(plan)

"""Stream → lake: every record into `changes`, as it came unless columns have rules, into `rejects`, or counted as ignored.

spark-submit glue_jobs/land_changes.py --config pipeline.yaml
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from glue_jobs.config.pipeline import decode_context
from glue_jobs.operations.reject_breaker import breaker_of
from glue_jobs.runtime import Batch, JobContext, Periodic, Query, Report, run_job
from glue_jobs.status.table_notes import AT_LOB_LIMIT, HIDDEN_KEYS
from glue_jobs.storage import lake_mark
from lake.landing.batch import Landing
from lake.landing.breaker import Breaker, landing_of
from lake.landing.decoding import Tally
from lake.layout import LakeLayout
from lake.maintenance import Maintenance
from sources import caught_up_probe, read_stream

type RecordCommit = Callable[[Mapping[str, str]], None]

FETCH_INTERVAL_MS = 1000
"""Landing takes one of a Kinesis shard's five reads a second and leaves four to `index_documents`."""
MAINTENANCE_SECONDS = 300.0
"""How often to look for small files; `lake.maintenance` says when they are rewritten."""


def plan(context: JobContext) -> list[Query | Periodic]:
    """Land each source by a query of its own, and maintain the tables from the same driver (I8)."""
    config, queries = context.config, list[Query | Periodic]()
    layout = LakeLayout(config.lake.path)
    for source in config.sources:
        name = f"land_{source.name}"
        landing = Landing(layout, source.name, decode_context(config, source.name))
        checkpoint, drain = context.checkpoint(name), context.available_now
        probe = caught_up_probe(source)
        slow = partial(read_stream, fetch_interval_ms=FETCH_INTERVAL_MS, drain=drain, probe=probe)
        read = partial(slow, context.spark, source, checkpoint)
        record_commit = partial(lake_mark.record_commit, config.checkpoint, name)
        write = _write(landing, record_commit, breaker_of(context, name, landing_of(source.name)))
        empty_us = probe.caught_up_us if probe else None
        queries.append(Query(name, read, write, config.lake.land_every, empty_us=empty_us))
    return [*queries, Periodic("maintain_changes", Maintenance(context.spark, layout).run, MAINTENANCE_SECONDS)]


def _write(landing: Landing, record_commit: RecordCommit, breaker: Breaker) -> Callable[[Batch], Report]:
    def write(batch: Batch) -> Report:
        tally = landing.land(batch.frame, batch.transaction, partial(breaker.admit, batch.batch_id))
        if tally.landed.total():  # else nothing was committed to `changes`
            record_commit(batch.transaction("changes"))
        return report_of(tally)

    return write


def report_of(tally: Tally) -> Report:
    """Landing's counts as the report of a batch."""
    counts: dict[str, dict[str, int]] = {}
    kinds: Mapping[str, Mapping[str, int]] = {
        "changes": tally.landed,
        "rejects": tally.rejected,
        "ignored": tally.ignored_by_table,
        "columns rejected": tally.unfit,
        HIDDEN_KEYS: tally.hidden_keys,
        AT_LOB_LIMIT: tally.at_lob_limit,
    }
    for kind, by_table in kinds.items():
        for table, number in by_table.items():
            counts.setdefault(table, {})[kind] = number
    reached = {f"{stream}/{partition}": newest for (stream, partition), newest in tally.newest_commit_us.items()}
    return Report(counts, reached_us=reached)


if __name__ == "__main__":
    run_job(plan)

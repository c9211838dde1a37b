"""Lake → lake: `changes` folded into a Delta table of live rows for each source table.

spark-submit glue_jobs/merge_tables.py --config pipeline.yaml
"""

from __future__ import annotations

from functools import partial

from glue_jobs.config.pipeline import decode_contexts
from glue_jobs.runtime import Batch, JobContext, Periodic, Query, Report, run_job
from lake.landing.batch import read_changes
from lake.layout import LakeLayout
from lake.tables.merge import TableMerger


def plan(context: JobContext) -> list[Query | Periodic]:
    """Merge all tables by one query, which reads `changes` once."""
    config = context.config
    layout = LakeLayout(config.lake.path)
    contexts = decode_contexts(config)
    merger = TableMerger(layout, config.tables, contexts, deletion_vectors=config.lake.deletion_vectors)
    merger.settle(context.spark)

    def write(batch: Batch) -> Report:
        merged = merger.merge(batch.frame, batch.transaction)
        return Report({table: counts.named("merged") for table, counts in merged.items()})

    read = partial(read_changes, context.spark, layout)
    return [Query("merge", read, write, config.lake.merge_every, keep=True, drains_after=("land",))]


if __name__ == "__main__":
    run_job(plan)

"""Lake → lake: `changes` folded into a Delta table of live rows for each source table.

spark-submit glue_jobs/merge_tables.py --config pipeline.yaml
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from glue_jobs.config.pipeline import decode_context
from glue_jobs.runtime import Batch, JobContext, Periodic, Query, Report, run_job
from lake.landing.batch import create_tables, read_changes
from lake.layout import LakeLayout
from lake.tables.merge import TableMerger

if TYPE_CHECKING:
    from collections.abc import Callable


def plan(context: JobContext) -> list[Query | Periodic]:
    """Merge all tables by one query, which reads `changes` once."""
    config = context.config
    layout = LakeLayout(config.lake.path)
    contexts = {source.name: decode_context(config, source.name) for source in config.sources}
    create_tables(layout)
    merger = TableMerger(layout, config.tables, contexts)

    read = partial(read_changes, context.spark, layout)
    return [Query("merge", read, _write(merger), config.lake.merge_every, keep=True, drains_after=("land",))]


def _write(merger: TableMerger) -> Callable[[Batch], Report]:
    def write(batch: Batch) -> Report:
        merged = merger.merge(batch.frame, batch.transaction)
        return Report({
            table: {"merged": c.changes, "rows written": c.written, "rows deleted": c.deleted, "rejects": c.rejects}
            for table, c in merged.items()
        })  # fmt: skip

    return write


if __name__ == "__main__":
    run_job(plan)

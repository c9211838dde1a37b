"""Lake → warehouse: `changes` folded into Redshift tables, at most once a minute.

spark-submit glue_jobs/load_warehouse.py --config pipeline.yaml
"""

from __future__ import annotations

from functools import partial

from glue_jobs.config.pipeline import decode_contexts
from glue_jobs.operations.ownership import owner_of
from glue_jobs.runtime import Batch, JobContext, Periodic, Query, Report, run_job
from lake.landing.batch import create_tables, read_changes
from lake.layout import LakeLayout
from warehouse.loader import WarehouseLoader

_BATCH_BYTES = "512m"
"""Most bytes of `changes` files in a batch, which bounds a first load and one after an outage."""


def plan(context: JobContext) -> list[Query | Periodic]:
    """Load `changes` by one query; no query where no warehouse is configured."""
    config = context.config
    if config.warehouse is None:
        return []
    layout = LakeLayout(config.lake.path)
    create_tables(layout)
    loader = WarehouseLoader(layout, config.tables, decode_contexts(config), config.warehouse, owner_of(config))

    def write(batch: Batch) -> Report:
        loaded = loader.load(batch.frame, f"{batch.query_id}/{batch.batch_id}", batch.transaction)
        return Report({table: counts.named("loaded") for table, counts in loaded.items()})

    read = partial(read_changes, context.spark, layout, maxBytesPerTrigger=_BATCH_BYTES)
    every = config.warehouse.load_every
    return [Query("load", read, write, every, keep=True, drains_after=("land",))]


if __name__ == "__main__":
    run_job(plan)

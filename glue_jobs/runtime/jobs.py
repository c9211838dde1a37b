"""What a job is: a function from a context to the queries to keep running.

A job file is `plan(context)` and two lines that run it:

    def plan(context: JobContext) -> list[Query | Periodic]:
        '''Create what is missing, and describe one query for each source.'''
        return [
            Query(
                name=f"land_{source.name}",
                read=lambda: read_stream(
                    context.spark, source, context.checkpoint(f"land_{source.name}"), drain=context.available_now
                ),
                write=LandChanges(context, source.name),
                every_seconds=context.config.lake.land_every,
            )
            for source in context.config.sources
        ]

    if __name__ == "__main__":
        run_job(plan)

`plan` is called once a driver, after every part was checked and before any query starts. Several drivers may call it at
once, so it creates only what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from glue_jobs.status.as_of import AsOf

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from glue_jobs.config.pipeline import PipelineConfig

JOBS: Mapping[str, str] = {
    "land": "glue_jobs.land_changes",
    "merge": "glue_jobs.merge_tables",
    "index": "glue_jobs.index_documents",
    "load": "glue_jobs.load_warehouse",
}
"""By the name that `ragstream run --jobs` takes: the module with the job's `plan`."""


def listed(names: str) -> tuple[str, ...]:
    """Split names at commas."""
    return tuple(name.strip() for name in names.split(",") if name.strip())


@dataclass(frozen=True)
class JobContext:
    """The session, the configuration and the mode of a run."""

    spark: SparkSession
    config: PipelineConfig
    available_now: bool = False
    """Drain the sources and end, rather than follow them."""
    some_tables: bool = False
    """Carry only some tables of the pipeline (`run --tables`), beside the whole pipeline."""
    accept_rejects: bool = False
    """Land however many rejects there are (`run --accept-rejects`)."""

    def checkpoint(self, query_name: str) -> str:
        """The checkpoint folder of a query, under `checkpoint` of the configuration."""
        return f"{self.config.checkpoint.rstrip('/')}/{query_name}"


@dataclass(frozen=True)
class Batch:
    """One micro-batch. A batch run again after a kill has the same `batch_id` and the same records."""

    frame: DataFrame
    """The records; one action on it, unless the query says `keep` (I11)."""
    batch_id: int
    query_id: str
    """Spark's id of the query, stored in its checkpoint: the same for every run of that checkpoint."""

    @property
    def spark(self) -> SparkSession:
        """The session of the batch: a clone of the driver's, so its settings do not leak."""
        return self.frame.sparkSession

    def transaction(self, table: str) -> dict[str, str]:
        """The Delta writer options that make an append to `table` idempotent when the batch runs again (I7)."""
        return {"txnAppId": f"{self.query_id}:{table}", "txnVersion": str(self.batch_id)}


@dataclass(frozen=True)
class Report:
    """What one micro-batch did; `ragstream status` adds the reports up over all runs of a checkpoint.

    Counts of a batch that runs again replace the counts of its first run; model requests (`embedding`) are added, since
    they were made twice. `reached_us` updates the query's `as_of`; `freshness_ms` (commit at the source until written, one
    entry a change) updates percentiles over the last minutes.
    """

    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By table, then by what was counted: `changes`, `rejects`, `ignored`, `written`, `refused` and the like."""
    embedding: Mapping[str, int] = field(default_factory=dict)
    """`requests`, `texts`, `tokens`, `cache_hits`, `cache_misses`, `throttles`."""
    reached_us: Mapping[str, int] = field(default_factory=dict)
    """By partition, `stream/partition`: its newest source commit in the batch, in microseconds since the epoch."""
    freshness_ms: Mapping[str, list[float]] = field(default_factory=dict)
    """By table, in milliseconds."""
    columns_missing: Mapping[str, tuple[str, Sequence[str]]] = field(default_factory=dict)
    """By table: the sequence of the newest complete row, and the document's columns that it lacks."""
    error: str = ""
    """An outage that the query works around."""


@dataclass(frozen=True)
class Query:
    """One Structured Streaming query with its own checkpoint, trigger and restarts.

    The runtime starts it, restarts it after an outage (UnavailableError), and stops the driver when a restart cannot help
    (StoppedError, exit 3). `read` is called at every start, `write` once a micro-batch, on the driver. A query whose `read`
    returns None has no source of Spark's: its batches are ticks of a clock and never run again. An exception raised by
    `write`, in a worker or in a Python source reaches the runner with its own type.
    """

    name: str
    """Unique in the pipeline, safe as a folder's name: `land_desk`. It names the checkpoint: another name starts anew."""
    read: Callable[[], DataFrame | None]
    write: Callable[[Batch], Report | None]
    every_seconds: float = 0.0
    """Trigger interval, from the start of one batch to the start of the next; 0: no pause."""
    pool: str = "default"
    """FAIR scheduler pool: `index` goes before `default`."""
    keep: bool = False
    """Persist the batch while `write` runs, so that several actions read the source once."""
    as_of: AsOf = field(default_factory=AsOf)
    """The time up to which all commits of its source are written; the runtime updates it."""
    empty_us: Callable[[Mapping[str, Any] | None], Mapping[str, int] | None] | None = None
    """The caught-up probe (`sources.caught_up`), called about once a second with Spark's last progress report: by partition, when
    it was last seen to hold no unprocessed record. Without it, Spark's status says whether the source is idle."""
    again: Callable[[], bool] = lambda: False
    """Polled several times a second: whether to restart the query between two batches."""
    end: Callable[[], None] | None = None
    """Called after the query's last start in this driver."""
    drains_after: tuple[str, ...] = ()
    """With `available_now`: prefixes of the names of queries to drain before this one: ("land",)."""


@dataclass(frozen=True)
class Periodic:
    """Periodic work beside the queries, such as flushing a buffer; run once more when the queries have ended.

    Two runs never overlap. A PipelineError is treated as one of a query.
    """

    name: str
    run: Callable[[], None]
    every_seconds: float


type Plan = Callable[[JobContext], list[Query | Periodic]]

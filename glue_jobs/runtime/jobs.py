"""The shape of a job: a function from a context to the queries it wants kept running.

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

`plan` is called once a driver, after every part was checked and before any query starts. It may be called by several
drivers at once, so what it creates it creates if missing.
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
"""What `ragstream run --jobs` calls a job, and the module whose `plan` it is."""


@dataclass(frozen=True)
class JobContext:
    """What a job is given to work with."""

    spark: SparkSession
    config: PipelineConfig
    available_now: bool = False
    """Drain what is there and end, rather than follow the stream."""
    some_tables: bool = False
    """Carry some tables of the pipeline alone, beside the whole of it."""

    def checkpoint(self, query_name: str) -> str:
        """Where the query of that name keeps its offsets: one folder a query, under `checkpoint` of the configuration."""
        return f"{self.config.checkpoint.rstrip('/')}/{query_name}"


@dataclass(frozen=True)
class Batch:
    """One micro-batch. A batch run again after a kill has the same `batch_id` and the same records."""

    frame: DataFrame
    """The records; one action on it, unless the query says `keep` (I11)."""
    batch_id: int
    query_id: str
    """Made with the checkpoint and kept in it: the same for every run of this checkpoint, another for every other."""

    @property
    def spark(self) -> SparkSession:
        """The session of the batch: a clone of the driver's, so settings made on it stay in it."""
        return self.frame.sparkSession

    def transaction(self, table: str) -> dict[str, str]:
        """The Delta writer options that make an append to `table` happen once, however often the batch runs (I7)."""
        return {"txnAppId": f"{self.query_id}:{table}", "txnVersion": str(self.batch_id)}


@dataclass(frozen=True)
class Report:
    """What one micro-batch did; `ragstream status` adds the reports up over all runs of a checkpoint.

    `counts` and `embedding` are added: counts of the same batch run again replace the ones before, while model requests
    really happened twice. `reached_us` goes into the query's `as_of`. `freshness_ms` (commit at the source → written, one
    entry a change) goes into percentiles over the last minutes.
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
    """By table: the sequence of the newest whole row, and the columns of the document that it does not have."""
    error: str = ""
    """What does not answer now, while the query goes on."""


@dataclass(frozen=True)
class Query:
    """One Structured Streaming query: its own checkpoint, its own clock, its own failures.

    The runtime starts it, starts it again when a part it needs is back (UnavailableError), and stops the driver for
    what cannot heal (StoppedError, exit 3). `read` is called at every start; `write` once a micro-batch, on the driver. A
    query whose `read` gives None has no source of Spark's: its batches are the ticks of a clock, and what they count is
    never counted again. An exception raised by `write`, in a worker or in a Python source arrives at the runner with its
    own type.
    """

    name: str
    """Unique in the pipeline, safe as a folder's name: `land_desk`. It names the checkpoint: never rename it lightly."""
    read: Callable[[], DataFrame | None]
    write: Callable[[Batch], Report | None]
    every_seconds: float = 0.0
    """Time from the start of one batch to the start of the next; 0: as fast as it can."""
    pool: str = "default"
    """FAIR scheduler pool: `index` goes before `default`."""
    keep: bool = False
    """Keep the batch while `write` runs, so that several actions read the source once."""
    as_of: AsOf = field(default_factory=AsOf)
    """Up to when all that its source committed is written; the runtime keeps it."""
    empty_us: Callable[[Mapping[str, Any] | None], Mapping[str, int] | None] | None = None
    """Asked about once a second, given Spark's last progress report: of every partition, when it was seen to hold no more
    than was processed (`sources.idle.IdleNote`). Without it, whether the source is idle is read off Spark's status."""
    again: Callable[[], bool] = lambda: False
    """Asked several times a second: whether the query is to be started again, between two batches."""
    end: Callable[[], None] | None = None
    """Called when the query is not started again in this driver."""
    drains_after: tuple[str, ...] = ()
    """Prefixes of query names that must be drained before this one is, when the run is `available_now`: ("land",)."""


@dataclass(frozen=True)
class Periodic:
    """Work beside the queries, such as flushing a buffer; run once more when the queries have ended.

    It is never run twice at once. A PipelineError it raises means what it means from a query.
    """

    name: str
    run: Callable[[], None]
    every_seconds: float


type Plan = Callable[[JobContext], list[Query | Periodic]]

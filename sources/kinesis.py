"""Kinesis Data Streams as a Spark source of ours, `format("ragstream_kinesis")`, the same one here and on Glue.

A batch is fixed when it is planned: for each shard the records after one sequence number up to and including another,
and how many that must be. Run again, from the driver's buffer or fetched anew after a restart, it holds exactly the same
records, or the task fails. A shard's children are read only after the batch that ended it was planned.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, NamedTuple, cast

import pyarrow as pa
from pydantic import Field, SecretStr, model_validator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.datasource import DataSource, DataSourceStreamReader, InputPartition
from pyspark.sql.datasource_internal import _SimpleStreamReaderWrapper
from pyspark.sql.types import StructType

from schemas.errors import ConfigurationError, PipelineError
from schemas.model import StrictModel
from schemas.records import RECORD_COLUMNS, Record
from sources.idle import FileNote, IdleWriter
from sources.kinesis_client import Access, Stream
from sources.kinesis_feed import Feed, confirm_same
from sources.kinesis_offsets import TRIM_HORIZON, Mark, Offset, at_timestamp, first_offset, with_children
from sources.kinesis_read import read_exactly
from sources.kinesis_records import RawRecord, user_records
from sources.rows import record_batches

SMALL_BATCH_RECORDS = 128
SMALL_BATCH_BYTES = 1024 * 1024
"""Up to here a batch is one task, and its records reach the JVM with the plan."""
_LONG_POLL_S = 0.1
"""How long Spark's question for new records may wait for them, in seconds; it asks again at once."""


class KinesisSourceConfig(StrictModel):
    """A Kinesis data stream."""

    type: Literal["kinesis"]
    name: str = "kinesis"
    """Name by which a table refers to this source."""
    envelope: Literal["debezium", "dms"]
    """Who captured the changes."""
    stream: str = Field(min_length=1)
    """Name of the stream."""
    region: str | None = None
    """Region of the stream; the job's own when absent."""
    endpoint_url: str | None = None
    """Another endpoint than the region's, such as a VPC endpoint or the local stack."""
    access_key: str | None = None
    """For the local stack; without it boto3 finds the job's role."""
    secret_key: SecretStr | None = None
    starting: Literal["trim_horizon", "latest", "timestamp"] = "trim_horizon"
    """Where a job without a checkpoint begins; times count in whole seconds, as boto3 sends no fraction."""
    starting_timestamp: datetime | None = None
    """The time to begin at, with `starting: timestamp`."""
    fetch_interval_ms: int = Field(default=250, ge=1)
    """Pause between two reads of a shard. Kinesis allows five a second to all readers of a shard together, and each job
    is one; adds half of itself to the time until a change is searchable."""
    max_records_per_trigger: int = Field(default=10_000, ge=1)
    """Most records in a micro-batch over all shards."""

    @model_validator(mode="after")
    def _belong_together(self) -> KinesisSourceConfig:
        if (self.starting == "timestamp") != (self.starting_timestamp is not None):
            raise ValueError("starting_timestamp goes with starting: timestamp, and only with it")
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key go together")
        return self

    def access(self, checkpoint: str = "") -> Access:
        """Say how to reach the stream."""
        secret = self.secret_key.get_secret_value() if self.secret_key else None
        return Access(self.stream, self.region, self.endpoint_url, self.access_key, secret, checkpoint)

    def origin(self, now_ms: int) -> str:
        """Say where a job without a checkpoint begins; `latest` is the time it was first asked."""
        if self.starting == "trim_horizon":
            return TRIM_HORIZON
        moment = self.starting_timestamp
        return at_timestamp(now_ms if moment is None else round(moment.timestamp() * 1000))


def check(config: KinesisSourceConfig) -> None:
    """Describe the stream and read from one of its shards; raises ConfigurationError when that cannot be done."""
    stream = Stream(config.access())
    try:
        summary = stream.summary()
        shard_id = next(iter(stream.shards()))
        stream.fetch(shard_id, stream.iterator(shard_id, Mark(TRIM_HORIZON)), limit=1)
    except ConfigurationError:
        raise
    except PipelineError as error:
        raise ConfigurationError(
            f"source {config.name!r}: {error.message}",
            condition="SOURCE_STREAM_UNREADABLE",
            hint="Check `stream`, `region` and `endpoint_url` under `source`, and that the stream exists.",
        ) from None
    if summary.distribution != "USER_PARTITION_KEY":
        raise ConfigurationError(
            f"source {config.name!r}: stream {config.stream} spreads records without regard to their partition key.",
            condition="SOURCE_STREAM_UNORDERED",
            hint="Set its record distribution strategy to USER_PARTITION_KEY: changes of one row must stay on one shard.",
        )


def read_stream(
    spark: SparkSession,
    config: KinesisSourceConfig,
    checkpoint: str = "",
    *,
    fetch_interval_ms: int | None = None,
    drain: bool = False,
    idle: FileNote | None = None,
) -> DataFrame:
    """Read the stream as a stream of records.

    `fetch_interval_ms` overrides the configured pause for a job that can wait. With `drain` the stream ends at what it
    held when the query began; see `sources.drain`. `idle` is told up to when the stream has been processed.
    """
    spark.dataSource.register(KinesisSource)
    options = dict(zip(Access._fields, config.access(checkpoint), strict=True)) | {
        "origin": config.origin(int(time.time() * 1000)),
        "fetch_interval_ms": fetch_interval_ms or config.fetch_interval_ms,
        "max_records_per_trigger": config.max_records_per_trigger,
        "drain": drain,
        "idle_note": idle.path if idle else "",
    }
    given = {name: json.dumps(value) for name, value in options.items()}
    return spark.readStream.format(KinesisSource.name()).options(**given).load()


class ShardSlice(NamedTuple):
    """One shard's part of a batch; `records` is None when the task has to fetch them."""

    shard_id: str
    start: Mark
    end: Mark
    records: list[RawRecord] | None

    @property
    def size(self) -> int:
        """Records in it."""
        return self.end.count - self.start.count


@dataclass(frozen=True)
class BatchPart(InputPartition):
    """What one task reads: a shard's part of a batch, or a whole small batch."""

    slices: tuple[ShardSlice, ...]


class KinesisSource(DataSource):
    """Spark's entry to a Kinesis stream."""

    @classmethod
    def name(cls) -> str:
        """Name the format."""
        return "ragstream_kinesis"

    def schema(self) -> str:
        """Yield the columns of every reader."""
        return RECORD_COLUMNS

    def streamReader(self, schema: StructType) -> DataSourceStreamReader:  # noqa: N802 - Spark's name
        """Open the reader for one query."""
        given = {name: json.loads(self.options[name]) for name in (*Access._fields, *_READER_OPTIONS)}
        access = Access(*(given.pop(name) for name in Access._fields))
        return KinesisReader(Stream(access), **given)


_READER_OPTIONS = ("origin", "fetch_interval_ms", "max_records_per_trigger", "drain", "idle_note")


class KinesisReader(_SimpleStreamReaderWrapper):
    """Plans batches on the driver; on an executor only `read` is called.

    `partitions` is how Spark says where the query stands: with start = end after a restart, then once for each batch.
    The base class is Spark's own reader that prefetches: a small batch is handed to the JVM with its plan (`getCache`),
    as Spark's simple readers do, and no Python worker has to read it. Without it everything works, a stage slower.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        origin: str,
        fetch_interval_ms: int,
        max_records_per_trigger: int,
        drain: bool,
        idle_note: str = "",
    ) -> None:
        """Keep what to read; nothing is opened before Spark asks."""
        self._stream = stream
        self._origin = origin
        self._interval_s = fetch_interval_ms / 1000
        self._limit = max_records_per_trigger
        self._drain = drain
        self._idle = IdleWriter(idle_note)
        self._initial: Offset | None = None
        self._planned: Offset | None = None
        self._handed_over: tuple[ShardSlice, ...] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Travel to the executors without threads and buffers."""
        return {name: value for name, value in vars(self).items() if name != "_feed"}

    def initialOffset(self) -> dict[str, Any]:  # noqa: N802 - Spark's name
        """Begin where the configuration says.

        Never at what was planned: Spark asks for the start of an uncommitted first batch after telling its end.
        """
        if self._initial is None:
            identity = self._stream.summary().identity
            self._initial = first_offset(identity, self._stream.shards(), self._origin, int(time.time() * 1000))
        return self._initial.to_json()

    def latestOffset(self) -> dict[str, Any]:  # noqa: N802 - Spark's name
        """Go on by what was read ahead; the offset last planned when there is nothing.

        When draining, waits until there is something or every shard has been read to its end.
        """
        planned = self._standing()
        for shard_id, mark in planned.shards.items():
            self._feed.follow(shard_id, mark)
        patience = time.monotonic() + _LONG_POLL_S
        while True:
            self._feed.raise_failure()
            reached = self._reached(planned)
            done = self._drained(planned) if self._drain else time.monotonic() > patience
            if reached != planned:
                return reached.to_json()
            # Spark asks on when the batch before is done: what was planned is processed.
            self._idle.note(self._feed.empty_since(planned.shards))
            if done:
                return planned.to_json()
            self._feed.wait(_LONG_POLL_S)

    def partitions(self, start: dict[str, Any], end: dict[str, Any]) -> Sequence[InputPartition]:
        """Hand each shard's records between two offsets to a task, or only their bounds after a restart."""
        begin, until = Offset.from_json(start), Offset.from_json(end)
        if self._planned is None:
            self._refuse_another_stream(until)
        self._planned = until
        slices = [
            ShardSlice(shard_id, since, mark, self._feed.slice(shard_id, since, mark))
            for shard_id, mark in until.shards.items()
            if mark.count > (since := _start_of(begin.shards.get(shard_id), mark)).count
        ]
        self._handed_over = None
        if slices and _is_small(slices):
            self._handed_over = tuple(slices)
            return [BatchPart(tuple(slices))]
        return [BatchPart((part,)) for part in slices]

    def getCache(self, start: dict[str, Any], end: dict[str, Any]) -> Iterator[Any]:  # noqa: N802 - Spark's name
        """Hand the batch just planned to the JVM; None (which Spark asks for) when it is no small one."""
        return cast("Iterator[Any]", self._handed_over and self.read(BatchPart(self._handed_over)))

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:  # type: ignore[override]
        """Yield a part of a batch as Arrow batches."""
        yield from record_batches(self._records(cast("BatchPart", partition)))

    def _records(self, part: BatchPart) -> Iterator[Record]:
        for shard_id, start, end, kept in part.slices:
            raw = read_exactly(self._stream, shard_id, start, end) if kept is None else kept
            yield from user_records(self._stream.access.stream, shard_id, raw)

    def commit(self, end: dict[str, Any]) -> None:
        """Drop what the committed batch held."""
        for shard_id, mark in Offset.from_json(end).shards.items():
            self._feed.forget(shard_id, mark)

    def stop(self) -> None:
        """End the threads."""
        if "_feed" in vars(self):
            self._feed.stop()

    @cached_property
    def _feed(self) -> Feed:
        summary = self._stream.summary()
        return Feed(self._stream, summary, interval_s=self._interval_s, drain=self._drain)

    def _standing(self) -> Offset:
        if self._planned is None:
            self._planned = Offset.from_json(self.initialOffset())
        return self._planned

    def _reached(self, planned: Offset) -> Offset:
        """Take what was read ahead of every shard; when one ended, open its children."""
        open_shards = [shard_id for shard_id, mark in planned.shards.items() if not mark.closed]
        share = max(1, self._limit // max(1, len(open_shards)))
        taken = {shard_id: self._feed.take(shard_id, planned.shards[shard_id], share) for shard_id in open_shards}
        reached = Offset(planned.stream, {**planned.shards, **taken})
        if any(mark.closed for mark in taken.values()):
            return with_children(reached, self._stream.shards())
        return reached

    def _drained(self, planned: Offset) -> bool:
        return all(mark.closed or self._feed.drained(shard_id) for shard_id, mark in planned.shards.items())

    def _refuse_another_stream(self, offset: Offset) -> None:
        """Raise SourceGoneError when the stream was made again since the offset was written."""
        confirm_same(self._stream, offset.stream)


def _start_of(mark: Mark | None, end: Mark) -> Mark:
    """Go on from a mark; before the first record, from where the batch's end says that its shard began.

    Asked again after a restart, a job without a committed batch would begin elsewhere: `latest` is a later time then.
    """
    return mark if mark is not None and mark.count else Mark(end.origin)


def _is_small(slices: Sequence[ShardSlice]) -> bool:
    """Tell whether one task should do: splitting a few records costs more than it gains."""
    if any(part.records is None for part in slices) or sum(part.size for part in slices) > SMALL_BATCH_RECORDS:
        return False
    return sum(len(record.data) for part in slices for record in part.records or ()) <= SMALL_BATCH_BYTES

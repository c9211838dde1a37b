"""Plans the batches of a Kinesis stream, on the driver.

A batch is fixed when it is planned: for each shard the records after one sequence number up to and including another,
and how many that must be. Run again, from the driver's buffer or fetched anew after a restart, it holds exactly the same
records, or the task fails. A shard's children are read only after the batch that ended it was planned.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pyspark.sql.datasource import InputPartition
from pyspark.sql.datasource_internal import _SimpleStreamReaderWrapper

from sources.idle import IdleWriter
from sources.kinesis.loss import confirm_same
from sources.kinesis.offsets import Mark, Offset, first_offset, with_children
from sources.kinesis.range_reader import read_exactly
from sources.kinesis.read_ahead import ReadAhead
from sources.kinesis.records import RawRecord, user_records
from sources.rows import record_batches

if TYPE_CHECKING:
    import pyarrow as pa

    from schemas.records import Record
    from sources.feeds import Positions
    from sources.kinesis.client import Stream

SMALL_BATCH_RECORDS = 128
SMALL_BATCH_BYTES = 1024 * 1024
"""Up to here a batch is one task, and its records reach the JVM with the plan."""
_LONG_POLL_S = 0.1
"""How long Spark's question for new records may wait for them, in seconds; it asks again at once."""


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


class KinesisReader(_SimpleStreamReaderWrapper):
    """Plans batches with an end on the driver; on an executor only `read` is called.

    `partitions` is how Spark says where the query stands: with start = end after a restart, then once for each batch.
    The base class is Spark's own reader that prefetches: what a single task reads can be handed to the JVM with its plan
    (`getCache`), as Spark's simple readers do, and no Python worker has to read it.
    """

    def __init__(  # noqa: PLR0913 - the options of the source, named
        self,
        stream: Stream,
        *,
        origin: str,
        fetch_interval_ms: int,
        max_records_per_trigger: int,
        drain: bool,
        idle_note: str = "",
        starts: Positions | None = None,
    ) -> None:
        """Keep what to read; nothing is opened before Spark asks."""
        self._stream = stream
        self._origin = origin
        self._starts = starts
        self._initial: Offset | None = None
        self._planned: Offset | None = None
        self._interval_s = fetch_interval_ms / 1000
        self._limit = max_records_per_trigger
        self._drain = drain
        self._idle = IdleWriter(idle_note)
        self._handed_over: tuple[ShardSlice, ...] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Travel to the executors without threads and buffers."""
        return {name: value for name, value in vars(self).items() if name != "_ahead"}

    def initialOffset(self) -> dict[str, Any]:  # noqa: N802 - Spark's name
        """Begin at the positions to start with, or where the configuration says.

        Never at what was planned: Spark asks for the start of an uncommitted first batch after telling its end.
        """
        if self._initial is None:
            identity, listed = self._stream.summary().identity, self._stream.shards()
            if self._starts is None:
                self._initial = first_offset(identity, listed, self._origin, int(time.time() * 1000))
            else:
                marks = {name.rpartition("/")[2]: Mark(**at).as_origin() for name, at in self._starts.items()}
                self._initial = with_children(Offset(identity, marks), listed)
        return self._initial.to_json()

    def _standing(self) -> Offset:
        if self._planned is None:
            self._planned = Offset.from_json(self.initialOffset())
        return self._planned

    def _plan(self, until: Offset) -> None:
        """Go on from a batch's end; raises SourceGoneError when the stream was made again since that was written."""
        if self._planned is None:
            confirm_same(self._stream, until.stream)
        self._planned = until

    def latestOffset(self) -> dict[str, Any]:  # noqa: N802 - Spark's name
        """Go on by what was read ahead; the offset last planned when there is nothing.

        When draining, waits until there is something or every shard has been read to its end.
        """
        planned, stream = self._standing(), self._stream.access.stream
        for shard_id, mark in planned.shards.items():
            self._ahead.follow(shard_id, mark)
        patience = time.monotonic() + _LONG_POLL_S
        while True:
            self._ahead.raise_failure()
            # Spark asks on when the batch before is done: what was planned is processed.
            empty = self._ahead.empty_since(planned.shards)
            self._idle.note({f"{stream}/{shard_id}": ms for shard_id, ms in empty.items()})
            reached = self._reached(planned)
            done = self._drained(planned) if self._drain else time.monotonic() > patience
            if reached != planned:
                return reached.to_json()
            if done:
                return planned.to_json()
            self._ahead.wait(_LONG_POLL_S)

    def partitions(self, start: dict[str, Any], end: dict[str, Any]) -> Sequence[InputPartition]:
        """Hand each shard's records between two offsets to a task, or only their bounds after a restart."""
        begin, until = Offset.from_json(start), Offset.from_json(end)
        self._plan(until)
        slices = [
            ShardSlice(shard_id, since, mark, self._ahead.slice(shard_id, since, mark))
            for shard_id, since, mark in spans(begin, until)
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
            self._ahead.forget(shard_id, mark)

    def stop(self) -> None:
        """End the threads."""
        if "_ahead" in vars(self):
            self._ahead.stop()

    @cached_property
    def _ahead(self) -> ReadAhead:
        identity = self._stream.summary().identity
        return ReadAhead(self._stream, identity, interval_s=self._interval_s, drain=self._drain)

    def _reached(self, planned: Offset) -> Offset:
        """Take what was read ahead of every shard; when one ended, open its children."""
        open_shards = [shard_id for shard_id, mark in planned.shards.items() if not mark.closed]
        share = max(1, self._limit // max(1, len(open_shards)))
        taken = {shard_id: self._ahead.take(shard_id, planned.shards[shard_id], share) for shard_id in open_shards}
        reached = Offset(planned.stream, {**planned.shards, **taken})
        if any(mark.closed for mark in taken.values()):
            return with_children(reached, self._stream.shards())
        return reached

    def _drained(self, planned: Offset) -> bool:
        return all(mark.closed or self._ahead.drained(shard_id) for shard_id, mark in planned.shards.items())


def spans(begin: Offset, until: Offset) -> list[tuple[str, Mark, Mark]]:
    """What lies between two offsets, by shard; nothing before an open batch of before readers: its offset is where it begins."""
    return [
        (shard_id, since, mark)
        for shard_id, mark in until.shards.items()
        if not until.opened and mark.count > (since := _start_of(begin.shards.get(shard_id), mark)).count
    ]


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

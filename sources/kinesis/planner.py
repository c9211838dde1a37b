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

from sources.caught_up import FileProbeWriter
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
"""How long `latestOffset` waits for new records, in seconds; Spark calls it again at once."""


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
    """The part of one task: a shard's part of a batch, or a whole small batch."""

    slices: tuple[ShardSlice, ...]


class KinesisReader(_SimpleStreamReaderWrapper):
    """Plans batches with an end on the driver; on an executor only `read` is called.

    Spark calls `partitions` with start = end after a restart, then once for each batch. The base class is that of Spark's
    simple readers, which prefetch: the records of a single task go to the JVM with its plan (`getCache`), and no Python
    worker reads them.
    """

    def __init__(  # noqa: PLR0913 - the options of the source, named
        self,
        stream: Stream,
        *,
        origin: str,
        fetch_interval_ms: int,
        max_records_per_trigger: int,
        drain: bool,
        probe_file: str = "",
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
        self._probe = FileProbeWriter(probe_file)
        self._handed_over: tuple[ShardSlice, ...] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Travel to the executors without threads and buffers."""
        return {name: value for name, value in vars(self).items() if name != "_ahead"}

    def initialOffset(self) -> dict[str, Any]:  # noqa: N802 - Spark's name
        """Begin at the positions to start with, or where the configuration says.

        Never at the planned offset: Spark asks for the start of an uncommitted first batch after naming its end.
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
        """The offset after all that was read ahead; the last planned one when there is nothing.

        A drain waits until there is something, or every shard has been read to its end.
        """
        planned, stream = self._standing(), self._stream.access.stream
        for shard_id, mark in planned.shards.items():
            self._ahead.follow(shard_id, mark)
        patience = time.monotonic() + _LONG_POLL_S
        while True:
            self._ahead.raise_failure()
            # Spark calls this when the batch before is done: all that was planned is processed.
            caught_up = self._ahead.caught_up_ms(planned.shards)
            self._probe.write({f"{stream}/{shard_id}": ms for shard_id, ms in caught_up.items()})
            reached = self._reached(planned)
            done = self._drained(planned) if self._drain else time.monotonic() > patience
            if reached != planned:
                return reached.to_json()
            if done:
                return planned.to_json()
            self._ahead.wait(_LONG_POLL_S)

    def partitions(self, start: dict[str, Any], end: dict[str, Any]) -> Sequence[InputPartition]:
        """A task for each shard, with the records between two offsets, or with the bounds alone after a restart."""
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
        """The records of the small batch just planned, for the JVM; None, as Spark wants it, for any other."""
        return cast("Iterator[Any]", self._handed_over and self.read(BatchPart(self._handed_over)))

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:  # type: ignore[override]
        """Yield a part of a batch as Arrow batches."""
        yield from record_batches(self._records(cast("BatchPart", partition)))

    def _records(self, part: BatchPart) -> Iterator[Record]:
        for shard_id, start, end, buffered in part.slices:
            raw = read_exactly(self._stream, shard_id, start, end) if buffered is None else buffered
            yield from user_records(self._stream.access.stream, shard_id, raw)

    def commit(self, end: dict[str, Any]) -> None:
        """Drop the records of the committed batch."""
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
        """The offset after what was read ahead of every shard, with the children of those that ended."""
        open_shards = [shard_id for shard_id, mark in planned.shards.items() if not mark.closed]
        share = max(1, self._limit // max(1, len(open_shards)))
        advanced = {shard_id: self._ahead.take(shard_id, planned.shards[shard_id], share) for shard_id in open_shards}
        reached = Offset(planned.stream, {**planned.shards, **advanced})
        if any(mark.closed for mark in advanced.values()):
            return with_children(reached, self._stream.shards())
        return reached

    def _drained(self, planned: Offset) -> bool:
        return all(mark.closed or self._ahead.drained(shard_id) for shard_id, mark in planned.shards.items())


def spans(begin: Offset, until: Offset) -> list[tuple[str, Mark, Mark]]:
    """The span of each shard between two offsets; none up to an open batch from before readers: its offset is its beginning."""
    return [
        (shard_id, since, mark)
        for shard_id, mark in until.shards.items()
        if not until.opened and mark.count > (since := _start_of(begin.shards.get(shard_id), mark)).count
    ]


def _start_of(mark: Mark | None, end: Mark) -> Mark:
    """The mark to go on from; before the first record, the origin that the batch's end names.

    A restarted job without a committed batch would begin elsewhere: `latest` is a later time then.
    """
    return mark if mark is not None and mark.count else Mark(end.origin)


def _is_small(slices: Sequence[ShardSlice]) -> bool:
    """Whether one task should read all: splitting a few records costs more than it gains."""
    if any(part.records is None for part in slices) or sum(part.size for part in slices) > SMALL_BATCH_RECORDS:
        return False
    return sum(len(record.data) for part in slices for record in part.records or ()) <= SMALL_BATCH_BYTES

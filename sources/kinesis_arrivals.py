"""The tasks of open batches: each reads its shards itself, for as long as it is told, and says how far it came."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import batched
from typing import TYPE_CHECKING, NamedTuple

from sources.kinesis_client import Access, Stream
from sources.kinesis_offsets import Identity, Mark
from sources.kinesis_read import read_exactly
from sources.kinesis_read_ahead import ReadAhead
from sources.kinesis_records import user_records
from sources.rows import record_batches

if TYPE_CHECKING:
    import pyarrow as pa

    from sources.kinesis_records import RawRecord

INSTRUCTION_COLUMNS = "instruction string"
"""One row a task: an `Instruction`."""
_AT_ONCE = 512
"""Most raw records of a shard that are handed on in one group."""


class Work(NamedTuple):
    """One shard's part of a task; without an end it is read until the task is old enough."""

    shard_id: str
    start: Mark
    end: Mark | None = None


@dataclass(frozen=True)
class Instruction:
    """What one task of a batch reads."""

    stream: Identity
    retention_ms: int
    opened: int
    """Number of the open batch; 0 for a batch with an end."""
    tasks: int
    """Tasks of the batch."""
    works: tuple[Work, ...]

    def to_json(self) -> str:
        """Write it as a row."""
        works = [[work.shard_id, asdict(work.start), work.end and asdict(work.end)] for work in self.works]
        return json.dumps([self.stream, self.retention_ms, self.opened, self.tasks, works])

    @staticmethod
    def from_json(written: str) -> Instruction:
        """Read what `to_json` wrote."""
        stream, retention_ms, opened, tasks, works = json.loads(written)
        read = [Work(shard_id, Mark(**start), Mark(**end) if end else None) for shard_id, start, end in works]
        return Instruction(Identity(*stream), retention_ms, opened, tasks, tuple(read))


class Reached(NamedTuple):
    """How far one task came, all of it written."""

    opened: int
    tasks: int
    empty_ms: Mapping[str, int]
    """When each of its shards that are open last held nothing more, in milliseconds; 0 if it did hold more."""
    marks: Mapping[str, Mark]

    def to_json(self) -> str:
        """Write it for the driver."""
        return json.dumps([*self[:3], {shard_id: asdict(mark) for shard_id, mark in self.marks.items()}])

    @staticmethod
    def from_json(written: str) -> Reached:
        """Read what `to_json` wrote."""
        opened, tasks, empty_ms, marks = json.loads(written)
        return Reached(opened, tasks, empty_ms, {shard_id: Mark(**mark) for shard_id, mark in marks.items()})


@dataclass(frozen=True)
class OpenReading:
    """How tasks read a stream; travels to them."""

    access: Access
    interval_s: float

    def begin(self, instructions: Iterable[pa.RecordBatch], seconds: float) -> Arrivals:
        """Begin one task, which ends at that age in seconds, or when one of its shards has ended."""
        rows = [row for batch in instructions for row in batch.to_pylist()]
        return Arrivals(self, [Instruction.from_json(row["instruction"]) for row in rows], seconds)


class Arrivals:
    """The records of one task as they come, in groups, and how far it came.

    A record of a shard comes after all that were before it there. After a kill it comes again, in another group perhaps.
    """

    def __init__(self, reading: OpenReading, instructions: Sequence[Instruction], seconds: float) -> None:
        """Read nothing yet."""
        self._reading = reading
        self._stream = _stream(reading.access)
        self._instructions = instructions
        self._seconds = seconds
        self._reached: Reached | None = None

    def __iter__(self) -> Iterator[list[pa.RecordBatch]]:
        """Yield groups of records; each is done with when the next is asked for. Raises what reading raises."""
        for instruction in self._instructions:
            for work in instruction.works:
                if work.end is not None:
                    yield from self._exactly(work.shard_id, work.start, work.end)
            if instruction.opened:
                yield from self._open(instruction)

    def reached(self) -> str | None:
        """Tell, at the end, how far it came; None of a batch that had an end."""
        return self._reached and self._reached.to_json()

    def _exactly(self, shard_id: str, start: Mark, end: Mark) -> Iterator[list[pa.RecordBatch]]:
        for raw in batched(read_exactly(self._stream, shard_id, start, end), _AT_ONCE, strict=False):
            yield self._group(shard_id, raw)

    def _open(self, instruction: Instruction) -> Iterator[list[pa.RecordBatch]]:
        until = time.monotonic() + self._seconds
        feed = ReadAhead(self._stream, instruction.stream, interval_s=self._reading.interval_s)
        try:
            marks = {work.shard_id: work.start for work in instruction.works}
            for shard_id, mark in marks.items():
                feed.follow(shard_id, mark)
            while True:
                feed.raise_failure()
                reached = {shard_id: feed.take(shard_id, mark, _AT_ONCE) for shard_id, mark in marks.items()}
                group = [
                    batch
                    for shard_id, mark in reached.items()
                    for batch in self._group(shard_id, feed.slice(shard_id, marks[shard_id], mark) or ())
                ]
                if group:
                    yield group
                for shard_id, mark in reached.items():
                    feed.forget(shard_id, mark)
                marks = reached
                left = until - time.monotonic()
                if left <= 0 or any(mark.closed for mark in marks.values()):
                    break
                if not group:
                    feed.wait(left)
            self._reached = Reached(instruction.opened, instruction.tasks, feed.empty_since(marks), marks)
        finally:
            feed.stop()

    def _group(self, shard_id: str, raw: Iterable[RawRecord]) -> list[pa.RecordBatch]:
        return list(record_batches(user_records(self._reading.access.stream, shard_id, raw)))


@lru_cache(maxsize=8)
def _stream(access: Access) -> Stream:
    """The stream, with the client that this worker keeps for it: making one costs 50 ms."""
    return Stream(access)

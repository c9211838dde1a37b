"""Open batches of a Kinesis stream: no record waits for a batch to be planned.

An open batch has no end when it is planned. Its offset says where it begins, and has a number. Its tasks read their shards
themselves until they are old enough, and tell how far they came before Spark commits: there the next batch begins. Run
again after a kill, a batch begins where it did and holds what has come since as well, so it is for work that may be
repeated. Read without this, the same checkpoint goes on with batches that have an end; an open one is nothing to them
but where it begins.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
from pyspark.sql.datasource import InputPartition

from sources.kinesis_arrivals import Instruction, OpenReading, Reached, Work
from sources.kinesis_offsets import Mark, Offset, with_children
from sources.kinesis_reader import PlanningReader, spans

if TYPE_CHECKING:
    from sources.kinesis_client import Access, Stream, Summary


class OpenBatches:
    """What a driver knows of a stream's open batches: how far their tasks came, and when there was nothing more.

    The reader, a process of its own beside the driver, plans the next batch by a file that this writes.
    """

    def __init__(self, access: Access, fetch_interval_ms: int, tasks: int) -> None:
        """Have a batch read by at most so many tasks; nothing is known yet."""
        folder = tempfile.mkdtemp(prefix="ragstream-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.path = str(Path(folder) / "reached")
        self.tasks = tasks
        self.reading = OpenReading(access, fetch_interval_ms / 1000)
        self._told: list[Reached] = []
        self._empty_us: dict[str, int] = {}

    def take(self, told: str) -> None:
        """Keep how far a task came (`Arrivals.reached`); called before Spark commits its batch."""
        reached = Reached.from_json(told)
        self._told = [*(each for each in self._told if each.opened == reached.opened), reached]
        marks = {shard_id: asdict(mark) for each in self._told for shard_id, mark in each.marks.items()}
        new = Path(f"{self.path}.new")
        new.write_text(json.dumps([reached.opened, marks]), encoding="ascii")
        new.replace(self.path)
        if len(self._told) == reached.tasks:
            empty_ms = {shard_id: ms for each in self._told for shard_id, ms in each.empty_ms.items()}
            # The children of a shard that ended are first told of by the next batch: until then it stands for them.
            stream = self.reading.access.stream
            self._empty_us = {f"{stream}/{shard_id}": empty_ms.get(shard_id, 0) * 1000 for shard_id in marks}

    def empty_us(self, progress: Mapping[str, Any] | None = None) -> Mapping[str, int] | None:
        """When each shard was processed to its end, as the last batch of which every task has told says."""
        return self._empty_us or None


def marks_told(path: str, opened: int) -> dict[str, Mark]:
    """The marks that the tasks of an open batch told, by shard; none when this driver has not run that batch."""
    with contextlib.suppress(FileNotFoundError):
        number, marks = json.loads(Path(path).read_text(encoding="ascii"))
        if number == opened:
            return {shard_id: Mark(**mark) for shard_id, mark in marks.items()}
    return {}


def dealt(works: Sequence[Work], tasks: int) -> list[tuple[Work, ...]]:
    """Deal shards out to at most so many tasks, evenly."""
    return [tuple(works[number::tasks]) for number in range(min(tasks, len(works)))]


@dataclass(frozen=True)
class Task(InputPartition):
    """The instruction of one task."""

    instruction: str


class OpenKinesisReader(PlanningReader):
    """Plans open batches on the driver; what it yields is one instruction (INSTRUCTION_COLUMNS) a task, not records."""

    def __init__(self, stream: Stream, *, origin: str, tasks: int, reached: str) -> None:
        """Read with that many tasks at most; they tell by the file `reached` how far they came."""
        super().__init__(stream, origin)
        self._tasks = tasks
        self._path = reached
        self._only_task: Task | None = None

    def latestOffset(self) -> dict[str, Any]:  # noqa: N802 - Spark's name
        """Begin the next batch where the last one's tasks came to; opens the children of shards that ended."""
        planned = self._standing()
        told = marks_told(self._path, planned.opened)
        offset = Offset(planned.stream, {**planned.shards, **told}, planned.opened + 1)
        if any(mark.closed for mark in told.values()):
            offset = with_children(offset, self._stream.shards())
        return offset.to_json()

    def partitions(self, start: dict[str, Any], end: dict[str, Any]) -> Sequence[InputPartition]:
        """Instruct the tasks of a batch; one with an end, planned without this, is read to that end."""
        begin, until = Offset.from_json(start), Offset.from_json(end)
        self._plan(until)
        works = [Work(*span) for span in spans(begin, until)]
        if until.opened:
            works = [Work(shard_id, mark) for shard_id, mark in until.shards.items() if not mark.closed]
        parts = dealt(works, self._tasks)
        tasks = [
            Task(Instruction(until.stream, self._summary.retention_ms, until.opened, len(parts), part).to_json())
            for part in parts
        ]
        self._only_task = tasks[0] if len(tasks) == 1 else None
        return tasks

    def getCache(self, start: dict[str, Any], end: dict[str, Any]) -> Iterator[Any]:  # noqa: N802 - Spark's name
        """Hand a single instruction to the JVM with the plan; None (which Spark asks for) when there are more."""
        return cast("Iterator[Any]", self._only_task and self.read(self._only_task))

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:  # type: ignore[override]
        """Yield the instruction of one task."""
        yield pa.RecordBatch.from_pydict({"instruction": [cast("Task", partition).instruction]})

    def commit(self, end: dict[str, Any]) -> None:
        """Drop nothing: nothing was read ahead."""

    def stop(self) -> None:
        """End nothing: the tasks end themselves."""

    @cached_property
    def _summary(self) -> Summary:
        return self._stream.summary()

"""What tests give a reader to read and to write: a stream and stores in this process, with faults on demand."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np

from embeddings.protocol import EmbeddingCounts
from indexing.result import Written
from indexing.work_unit import WorkUnit, decoded
from reader.messages import Harvest, Instruction, Partition, Position
from reader.pipeline import Pipeline
from reader.results import Results
from reader.writers import Steps, Writers
from schemas.changes import Reject
from schemas.errors import SourceGoneError, UnavailableError
from schemas.records import Record
from sources.feeds import MAX_RECORDS, Feed, Fetched, Positions
from tests.feeding import CONTEXT, SPECS
from tests.history import ModelTable, as_record

if TYPE_CHECKING:
    from indexing.indexer import Indexer


@dataclass
class MemoryStream:
    """Partitions in memory: a position is the number of the next record."""

    partitions: dict[Partition, list[Record]] = field(default_factory=lambda: defaultdict(list))
    away: str | None = None
    hung: threading.Event | None = None
    """The next fetch waits for it, whatever its deadline."""
    first: dict[Partition, int] = field(default_factory=dict)
    """Older records have expired."""
    feeds: list[MemoryFeed] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    _table: ModelTable = field(default_factory=ModelTable)

    def add(self, number: int, partition: Partition = "t/0", text: str = "x") -> None:
        """Append the insertion of one row."""
        self._table.insert(number, text)
        name = partition.rpartition("/")[2]
        record = as_record(self._table.changes.pop())
        with self.changed:
            here = self.partitions[partition]
            here.append(record._replace(partition=name, position=str(len(here)), timestamp_ms=int(time.time() * 1000)))
            self.changed.notify_all()

    def open(self) -> Feed:
        """Open a feed."""
        self.feeds.append(MemoryFeed(self))
        return self.feeds[-1]


class MemoryFeed:
    """A feed of such a stream."""

    def __init__(self, stream: MemoryStream) -> None:
        self.stream, self.positions, self.closed = stream, dict[Partition, int](), False
        self.fetched = 0

    def follow(self, positions: Positions) -> None:
        self.positions |= positions

    def leave(self, partitions: Collection[Partition]) -> None:
        for name in partitions:
            del self.positions[name]

    def fetch(self, seconds: float) -> Fetched:
        if (hung := self.stream.hung) is not None:
            self.stream.hung = None
            hung.wait()
        with self.stream.changed:
            self.stream.changed.wait_for(lambda: self.stream.away is None and self._new(), seconds)
            if self.stream.away is not None:
                return Fetched([], {})
            if gone := [name for name, at in self.positions.items() if self._is_gone(name, at)]:
                raise SourceGoneError(f"{gone[0]} has expired", hint="see the checkpoint")
            records, reached = list[Record](), dict[Partition, Position]()
            for name, at in self.positions.items():
                if not self._open(name, at):
                    continue
                if new_records := self.stream.partitions[name][at : at + MAX_RECORDS - len(records)]:
                    records += new_records
                    reached[name] = self.positions[name] = at + len(new_records)
            self.fetched += len(records)
            return Fetched(records, reached)

    def _new(self) -> bool:
        return any(self._open(name, at) for name, at in self.positions.items())

    def _is_gone(self, name: Partition, at: Position) -> bool:
        """Whether what follows has expired; of a shard of Kinesis, all of it has."""
        if isinstance(at, int):
            return at < self.stream.first.get(name, 0)
        return name in self.stream.first and not at["closed"]

    def _open(self, name: Partition, at: Position) -> bool:
        return self._is_gone(name, at) or (isinstance(at, int) and len(self.stream.partitions[name]) > at)

    def caught_up_us(self) -> dict[Partition, int]:
        with self.stream.changed:
            now = 0 if self.stream.away else time.time_ns() // 1000
            return {name: 0 if self._open(name, at) else now for name, at in self.positions.items()}

    @property
    def away(self) -> str | None:
        return self.stream.away

    def close(self) -> None:
        self.closed = True


class MemoryStore:
    """Remembers what was written to it, in order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.error: Exception | None = None
        self.pause = 0.0
        self.frozen = threading.Event()
        self.frozen.set()
        self.positions: dict[Partition, list[int]] = defaultdict(list)
        self.writes: list[tuple[int, bool]] = []
        """Records, and whether peers were asked for vectors."""
        self.vector_bytes = 0
        self.rejects = False
        self.opened = self.closed = 0

    def write(self, units: Sequence[WorkUnit], *, use_peers: bool = False) -> Written:
        self.frozen.wait()
        if self.error is not None:
            raise self.error
        time.sleep(self.pause)
        records = sorted((record for unit in units for _, record in unit.newest_records.values()), key=_place)
        written = Written()
        for record in records:
            self.positions[f"{record.stream}/{record.partition}"].append(int(record.position))
            if self.vector_bytes:
                vector = np.zeros(self.vector_bytes // 4, np.float32)
                written.embedded["model=test"][f"{record.partition}/{record.position}"] = vector
            if self.rejects:
                written.rejected.append((record, Reject("MODEL_REFUSED_TEXT", "no")))
        written.counts["writes"] += len(records)
        self.writes.append((len(records), use_peers))
        return written

    def close(self) -> None:
        self.closed += 1


def _place(record: Record) -> tuple[str, int]:
    return record.partition, int(record.position)


class MemoryIndexer:
    """Decodes as the product does, and writes to stores in memory."""

    def __init__(self, *names: str) -> None:
        self.memory = {name: MemoryStore(name) for name in names}
        self.counts = EmbeddingCounts()
        self.decode_error: Exception | None = None

    def decode(self, records: Iterable[Record]) -> WorkUnit:
        if self.decode_error is not None:
            raise self.decode_error
        return decoded(records, CONTEXT, SPECS)

    def writer(self, store: str) -> MemoryStore:
        self.memory[store].opened += 1
        return self.memory[store]

    def model_counts(self) -> EmbeddingCounts:
        return self.counts


class Reading:
    """A pipeline over such a stream and stores, and the driver's side of it."""

    def __init__(self, *names: str) -> None:
        self.stream, self.indexer, self.steps = MemoryStream(), MemoryIndexer(*names), Steps()
        self.writers = Writers(cast("Indexer", self.indexer), names, self.steps)
        self.batch = 0
        self.pipeline = self.again()

    def store(self, name: str) -> MemoryStore:
        return self.indexer.memory[name]

    def again(self) -> Pipeline:
        """Begin another epoch."""
        self.pipeline = Pipeline("kafka", self.stream.open, self.writers, Results(self.indexer.model_counts()))
        return self.pipeline

    def follow(
        self,
        positions: dict[str, dict[Partition, Position]],
        *,
        behind: Collection[str] = (),
        use_peers: Collection[str] = (),
    ) -> Harvest:
        """One instruction of a new batch, and its harvest."""
        self.batch += 1
        self.instruction = Instruction("e", self.batch, 0, positions, tuple(behind), tuple(use_peers))
        self.pipeline.follow(self.instruction)
        return self.pipeline.harvest("here:1", self.batch)

    def harvest(self, *, again: bool = False) -> Harvest:
        """The next batch's harvest, with the same instruction; or the same batch's."""
        self.batch += not again
        return self.pipeline.harvest("here:1", self.batch)

    def written(self, name: str, partition: Partition = "t/0") -> list[int]:
        """The positions written to a store, in the order they were."""
        return list(self.store(name).positions[partition])

    def is_at(self, name: str, position: int, partition: Partition = "t/0") -> bool:
        return bool(self.harvest().positions[name][partition] == position)


def unavailable(name: str) -> UnavailableError:
    return UnavailableError(f"sink {name} does not answer")

"""What became of records, kept until the driver has acknowledged it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from embeddings.protocol import EmbeddingCounts
from indexing.result import IndexResult

if TYPE_CHECKING:
    from indexing.result import Written
    from indexing.work_unit import WorkUnit
    from reader.messages import Partition, Position

MOST_BYTES = 32 << 20
"""Vectors and rejects that may wait for the driver; then reading waits."""
_ENTRY_BYTES = 500
"""What CPython takes for one vector or reject beside its numbers and bytes."""

type Gaps = dict[str, dict[Partition, tuple[Position, Position]]]


class Results:
    """Results since the last acknowledged harvest. The pipeline's lock guards it.

    A harvest of the same batch repeats what the former one told; one of a higher batch drops it.
    """

    def __init__(self, asked: EmbeddingCounts) -> None:
        """Begin with nothing but what the models were asked so far."""
        self.result = IndexResult()
        self.gaps: Gaps = {}
        self._batch = -1
        self._answered, self._answered_bytes = IndexResult(), 0
        self._answered_gaps: Gaps = {}
        self._acknowledged_asked = self._answered_asked = asked
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether as much waits for the driver as may."""
        return self._bytes + self._answered_bytes >= MOST_BYTES

    @property
    def told_asked(self) -> EmbeddingCounts:
        """What the models had been asked at the last harvest."""
        return self._answered_asked

    def add_written(self, written: Written) -> None:
        """Add what writing into one store led to."""
        self.result.add_written(written)
        self._bytes += sum(
            vector.nbytes + _ENTRY_BYTES for vectors in written.embedded.values() for vector in vectors.values()
        )
        self._bytes += sum(
            len(record.key or b"") + len(record.value or b"") + _ENTRY_BYTES for record, _ in written.rejected
        )

    def add_searchable(self, units: Sequence[WorkUnit]) -> None:
        """Take it that every store has these units now."""
        self.result.add_searchable(units, time.time_ns() // 1000)

    def add_gap(self, store: str, partition: Partition, begin: Position, end: Position | None) -> None:
        """Note what a store never got because the stream had lost it; None for the end of a shard that is over."""
        gaps = self.gaps.setdefault(store, {})
        gaps[partition] = (gaps.get(partition, (begin, end))[0], end)

    def harvest(self, batch: int, asked: EmbeddingCounts) -> tuple[IndexResult, Gaps, EmbeddingCounts]:
        """What is to be told in answer to a batch; nothing to one that is over."""
        if batch < self._batch:
            return IndexResult(), {}, EmbeddingCounts()
        if batch > self._batch:
            self._answered, self._answered_gaps, self._answered_bytes = IndexResult(), {}, 0
            self._acknowledged_asked = self._answered_asked
        self._answered.add(self.result)
        for store, gaps in self.gaps.items():
            told = self._answered_gaps.setdefault(store, {})
            for partition, (begin, end) in gaps.items():
                told[partition] = (told.get(partition, (begin, end))[0], end)
        self._batch, self._answered_bytes = batch, self._answered_bytes + self._bytes
        self.result, self.gaps, self._bytes, self._answered_asked = IndexResult(), {}, 0, asked
        return self._answered, self._answered_gaps, asked - self._acknowledged_asked

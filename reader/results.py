"""Results of indexing that are kept until the driver has acknowledged them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from embeddings.protocol import EmbeddingCounts
from indexing.result import IndexResult, Written
from indexing.work_unit import WorkUnit
from reader.messages import Partition, Position

MOST_BYTES = 32 << 20
"""Bytes of vectors and rejects that may wait for the driver; beyond them reading waits."""
_ENTRY_BYTES = 500
"""Memory of one vector or reject in CPython, beside its numbers and bytes."""

type Gaps = dict[str, dict[Partition, tuple[Position, Position]]]


class Results:
    """Results since the last acknowledged harvest. The pipeline's lock guards it.

    A harvest of the same batch repeats the one before, with what is new; one of a higher batch drops it.
    """

    def __init__(self, model_counts: EmbeddingCounts) -> None:
        """Begin empty; the requests to the models up to these counts were reported before."""
        self.result = IndexResult()
        self.gaps: Gaps = {}
        self._batch = -1
        self._reported, self._reported_bytes = IndexResult(), 0
        self._reported_gaps: Gaps = {}
        self._acknowledged_counts = self.reported_counts = model_counts
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether reading has to wait for the driver."""
        return self._bytes + self._reported_bytes >= MOST_BYTES

    def add_written(self, written: Written) -> None:
        """Add the result of writing into one store."""
        self.result.add_written(written)
        self._bytes += sum(
            vector.nbytes + _ENTRY_BYTES for vectors in written.embedded.values() for vector in vectors.values()
        )
        self._bytes += sum(
            len(record.key or b"") + len(record.value or b"") + _ENTRY_BYTES for record, _ in written.rejected
        )

    def add_searchable(self, units: Sequence[WorkUnit]) -> None:
        """Count units that every store has, as of now."""
        self.result.add_searchable(units, time.time_ns() // 1000)

    def add_gap(self, store: str, partition: Partition, begin: Position, end: Position | None) -> None:
        """Note records that the stream lost before a store had them; `end` is None for the end of a shard that no store reads."""
        _add_gap(self.gaps, store, partition, (begin, end))

    def harvest(self, batch: int, model_counts: EmbeddingCounts) -> tuple[IndexResult, Gaps, EmbeddingCounts]:
        """The results for a batch, with the requests to the models for them; nothing for a batch that is over."""
        if batch < self._batch:
            return IndexResult(), {}, EmbeddingCounts()
        if batch > self._batch:
            self._reported, self._reported_gaps, self._reported_bytes = IndexResult(), {}, 0
            self._acknowledged_counts = self.reported_counts
        self._reported.add(self.result)
        for store, gaps in self.gaps.items():
            for partition, gap in gaps.items():
                _add_gap(self._reported_gaps, store, partition, gap)
        self._batch, self._reported_bytes = batch, self._reported_bytes + self._bytes
        self.result, self.gaps, self._bytes, self.reported_counts = IndexResult(), {}, 0, model_counts
        return self._reported, self._reported_gaps, model_counts - self._acknowledged_counts


def _add_gap(gaps: Gaps, store: str, partition: Partition, gap: tuple[Position, Position | None]) -> None:
    """Extend a store's gap in a partition to a later one."""
    of_store = gaps.setdefault(store, {})
    of_store[partition] = (of_store.get(partition, gap)[0], gap[1])

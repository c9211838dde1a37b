"""The result of indexing records: counts that add up, and the vectors and rejects that the lake must keep. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from indexing.work_unit import FRESHNESS_SAMPLE, WorkUnit, freshness, keep_newest

if TYPE_CHECKING:
    import numpy as np

    from indexing.optimistic_writer import RowName
    from schemas.changes import Reject
    from schemas.records import Record
    from transforms.documents.planning import WholeRow

type Vectors = dict[str, dict[str, np.ndarray]]
"""By the model's fingerprint, by content hash."""


@dataclass
class Written:
    """The result of writing into one store."""

    counts: Counter[str] = field(default_factory=Counter)
    """As `OptimisticWriter.counts`."""
    embedded: Vectors = field(default_factory=lambda: defaultdict(dict))
    """New vectors from the model."""
    rejected: list[tuple[Record, Reject]] = field(default_factory=list)
    """The newest record of each document that the model or the store will never take, and the reason."""
    waiting: set[RowName] = field(default_factory=set)
    """Rows that were not written: their texts wait for the model's budget."""

    def add(self, other: Written) -> None:
        """Add the result of other rows, but for those that wait."""
        self.counts.update(other.counts)
        for fingerprint, vectors in other.embedded.items():
            self.embedded[fingerprint] |= vectors
        self.rejected += other.rejected


@dataclass
class IndexResult:
    """The result of indexing records. It pickles, and its size is bounded but for vectors and rejects."""

    counts: Counter[str] = field(default_factory=Counter)
    """Of records, as `WorkUnit.counts`, and of all stores together, as `OptimisticWriter.counts`."""
    embedded: Vectors = field(default_factory=lambda: defaultdict(dict))
    rejected: list[tuple[Record, Reject]] = field(default_factory=list)
    """The newest record of each document that the model or a store will never take, and the reason."""
    changes: Counter[str] = field(default_factory=Counter)
    """By table: the number of changes that every store has."""
    reached_us: dict[str, int] = field(default_factory=dict)
    """By partition: the newest commit that every store has or has missed."""
    freshness_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By table: from the source's commit to when every store had the change, of at most FRESHNESS_SAMPLE changes."""
    missed: set[str] = field(default_factory=set)
    """Stores without some of these records: they stayed away past their deadline."""
    whole_rows: dict[str, WholeRow] = field(default_factory=dict)
    """By table: the newest whole row, for the columns it lacks."""

    def add_unit(self, unit: WorkUnit) -> None:
        """Count records that were decoded."""
        self.counts.update(unit.counts)
        for table, row in unit.whole_rows.items():
            keep_newest(self.whole_rows, table, row)

    def add_written(self, written: Written) -> None:
        """Add the result of writing into one store."""
        self.counts.update(written.counts)
        for fingerprint, vectors in written.embedded.items():
            self.embedded[fingerprint] |= vectors
        self.rejected += written.rejected

    def add_searchable(self, units: Sequence[WorkUnit], now_us: int) -> None:
        """Count units that every store has, as of now."""
        for unit in units:
            self.changes.update({table: len(commits) for table, commits in unit.commits_us.items()})
            self._reach(unit.reached_us)
        self._sample(freshness(units, now_us))

    def add(self, other: IndexResult) -> None:
        """Add another result, of later records."""
        self.add_written(Written(other.counts, other.embedded, other.rejected))
        self.changes.update(other.changes)
        self._reach(other.reached_us)
        self._sample(other.freshness_ms)
        self.missed |= other.missed
        for table, row in other.whole_rows.items():
            keep_newest(self.whole_rows, table, row)

    def _reach(self, reached_us: dict[str, int]) -> None:
        for place, reached in reached_us.items():
            self.reached_us[place] = max(self.reached_us.get(place, 0), reached)

    def _sample(self, freshness_ms: dict[str, list[float]]) -> None:
        for table, ages in freshness_ms.items():
            kept = self.freshness_ms[table]
            kept += ages[: FRESHNESS_SAMPLE - len(kept)]

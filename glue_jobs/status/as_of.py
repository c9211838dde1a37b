"""The time up to which all commits of a source are written: that of its partition that is furthest behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping


class AsOf:
    """The as-of time of one query's source; it never goes back; safe for threads.

    The time of a partition is its newest commit that was written, or the last time at which it was seen to hold no more.
    Times are microseconds since the epoch and never in the future, whatever times a source reports.
    """

    def __init__(self) -> None:
        """Begin at 0."""
        self._lock = threading.Lock()
        self._reached_us: dict[str, int] = {}
        self._empty_us: dict[str, int] = {}
        self._at_us = 0

    @property
    def at_us(self) -> int:
        """Everything committed up to this time is written; 0: not known yet."""
        return self._at_us

    def wrote(self, reached_us: Mapping[str, int]) -> None:
        """Advance by the newest commit of each partition in a written batch."""
        now_us = time.time_ns() // 1000
        with self._lock:
            for place, reached in reached_us.items():
                self._reached_us[place] = max(self._reached_us.get(place, 0), min(reached, now_us))
            self._advance()

    def looked(self, empty_us: Mapping[str, int]) -> None:
        """Advance by the times at which partitions were seen to hold no more than is written; 0 for one that held more."""
        now_us = time.time_ns() // 1000
        with self._lock:
            self._empty_us = {
                place: max(min(empty, now_us), self._empty_us.get(place, 0)) for place, empty in empty_us.items()
            }
            self._advance()

    def emptied(self, at_us: int) -> None:
        """Record that everything in the source at a time is written."""
        with self._lock:
            self._at_us = max(self._at_us, at_us)

    def _advance(self) -> None:
        reached = [max(empty, self._reached_us.get(place, 0)) for place, empty in self._empty_us.items()]
        self._at_us = max(self._at_us, min(reached, default=0))


class StoresAsOf(AsOf):
    """The as-of times of several stores; updates apply to all but `without`, and its own time is the earliest."""

    def __init__(self, names: Iterable[str]) -> None:
        """Begin at 0 for each store."""
        super().__init__()
        self.stores = {name: AsOf() for name in names}
        self.without: frozenset[str] = frozenset()
        """Stores that are skipped: writes do not reach them."""

    @property
    def at_us(self) -> int:
        """Everything committed up to this time is in every store."""
        return min((store.at_us for store in self.stores.values()), default=self._at_us)

    def wrote(self, reached_us: Mapping[str, int]) -> None:
        """Advance by the newest commit of each partition in a batch that every store has."""
        for store in self._included():
            store.wrote(reached_us)

    def looked(self, empty_us: Mapping[str, int]) -> None:
        """Advance by the times at which partitions held no more than every store has."""
        for store in self._included():
            store.looked(empty_us)

    def emptied(self, at_us: int) -> None:
        """Record that every store has everything in the source at a time."""
        for store in self._included():
            store.emptied(at_us)

    def _included(self) -> list[AsOf]:
        return [store for name, store in self.stores.items() if name not in self.without]

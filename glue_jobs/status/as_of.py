"""Up to when all that a source committed is written: no later than its partition that is furthest behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping


class AsOf:
    """What one query's batches and looks at its source add up to; safe for threads. What it says stays true.

    A partition counts up to the newest commit that was written of it, or up to when it was last seen to hold no more. Times
    are microseconds since the epoch; none is later than now, whatever a source says of its commits.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self._lock = threading.Lock()
        self._reached_us: dict[str, int] = {}
        self._empty_us: dict[str, int] = {}
        self._at_us = 0

    @property
    def at_us(self) -> int:
        """Everything committed up to this time is written; 0 when that cannot be said of any time."""
        return self._at_us

    def wrote(self, reached_us: Mapping[str, int]) -> None:
        """Take the newest commit of each partition in a batch that is written."""
        now_us = time.time_ns() // 1000
        with self._lock:
            for place, reached in reached_us.items():
                self._reached_us[place] = max(self._reached_us.get(place, 0), min(reached, now_us))
            self._go_on()

    def looked(self, empty_us: Mapping[str, int]) -> None:
        """Take, of every partition there is, when it was seen to hold no more than is written; 0 of one that held more."""
        now_us = time.time_ns() // 1000
        with self._lock:
            self._empty_us = {
                place: max(min(empty, now_us), self._empty_us.get(place, 0)) for place, empty in empty_us.items()
            }
            self._go_on()

    def emptied(self, at_us: int) -> None:
        """Take it that all the source held at a time is written."""
        with self._lock:
            self._at_us = max(self._at_us, at_us)

    def _go_on(self) -> None:
        reached = [max(empty, self._reached_us.get(place, 0)) for place, empty in self._empty_us.items()]
        self._at_us = max(self._at_us, min(reached, default=0))


class StoresAsOf(AsOf):
    """The same of several stores; what is said to it is said of all of them, and it is as fresh as the one furthest behind."""

    def __init__(self, names: Iterable[str]) -> None:
        """Know nothing of any."""
        super().__init__()
        self.stores = {name: AsOf() for name in names}
        self.without: frozenset[str] = frozenset()
        """Stores of which nothing is said: what is written does not reach them."""

    @property
    def at_us(self) -> int:
        """Everything committed up to this time is in every store."""
        return min((store.at_us for store in self.stores.values()), default=self._at_us)

    def wrote(self, reached_us: Mapping[str, int]) -> None:
        """Take the newest commit of each partition in a batch that every store has."""
        for store in self._told():
            store.wrote(reached_us)

    def looked(self, empty_us: Mapping[str, int]) -> None:
        """Take, of every partition there is, when it held no more than every store has."""
        for store in self._told():
            store.looked(empty_us)

    def emptied(self, at_us: int) -> None:
        """Take it that every store has all the source held at a time."""
        for store in self._told():
            store.emptied(at_us)

    def _told(self) -> list[AsOf]:
        return [store for name, store in self.stores.items() if name not in self.without]

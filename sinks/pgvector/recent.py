"""What readers of one store in a process know of it for a short time, so that not every question counts it again.

Nothing here decides what is found: a word is common, or a filter lets many documents through, whether or not a few more of them
came since. A rare word, and a filter that few pass, are looked up by every question.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sinks.pgvector.config import PgvectorConfig
    from sinks.search import Filters

SECONDS = 10.0
COMMON = 200
"""Chunks with a word from which on its count may be an older one: a few more or fewer alter its weight little."""
MOST = 500
"""Words, and filters, that are kept."""


class Recent:
    """Counts of common words, and filters that many documents pass, each for `SECONDS`. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: dict[str, tuple[float, int]] = {}
        self._many: dict[tuple[Filters, int], float] = {}

    def counts(self) -> dict[str, int]:
        """How many chunks have each common word, by its tsquery."""
        since = self._clock() - SECONDS
        with self._lock:
            self._counts = {word: kept for word, kept in self._counts.items() if kept[0] > since}
            return {word: count for word, (_, count) in self._counts.items()}

    def note_counts(self, counts: Mapping[str, int]) -> None:
        """Keep counts that were read just now, those of common words; of more than `MOST` the last ones."""
        now = self._clock()
        common = {word: (now, count) for word, count in counts.items() if count >= COMMON}
        with self._lock:
            self._counts = dict([*self._counts.items(), *common.items()][-MOST:])

    def is_many(self, filters: Filters, chunks: int) -> bool:
        """Whether more documents pass a filter than would be compared one by one, for a search of so many chunks."""
        return self._many.get((filters, chunks), float("-inf")) > self._clock() - SECONDS

    def note_many(self, filters: Filters, chunks: int) -> None:
        """Keep that they are more."""
        with self._lock:
            self._many = dict([*self._many.items(), ((filters, chunks), self._clock())][-MOST:])


_ALL: dict[tuple[PgvectorConfig, int], Recent] = {}


def recent_of(config: PgvectorConfig, index_version: int) -> Recent:
    """Of all readers of an index version in this process."""
    return _ALL.setdefault((config, index_version), Recent())

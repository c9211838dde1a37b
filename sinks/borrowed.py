"""Vectors that another store holds: what was paid for is not paid for again (I9)."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.errors import PipelineError
from sinks import SinkConfig, open_sink

if TYPE_CHECKING:
    import numpy as np

    from sinks.protocol import Sink
    from sinks.rounds import VectorCache


@dataclass(frozen=True)
class KeptSomewhere:
    """A `VectorCache` that asks other stores of the same model for what the cache lacks, and gives the cache what they held.

    A store that is away or was never filled holds nothing.
    """

    cache: VectorCache
    others: tuple[SinkConfig, ...]
    fingerprint: str
    dimensions: int

    def get(self, content_hashes: Collection[str]) -> dict[str, np.ndarray]:
        """Look into the cache, then into one store after the other."""
        found = dict(self.cache.get(content_hashes))
        with contextlib.ExitStack() as open_stores:
            opened = (open_sink(config, self.fingerprint, self.dimensions) for config in self.others)
            borrowed = _lent(content_hashes, found, (open_stores.enter_context(closing(sink)) for sink in opened))
        if borrowed:
            self.cache.add(borrowed)
        return found | borrowed

    def add(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep new vectors in the cache."""
        self.cache.add(vectors)


@dataclass(frozen=True)
class Borrowing:
    """A `VectorCache` in memory that asks other open stores for what it lacks; a store that is away holds nothing."""

    cache: VectorCache
    lenders: Sequence[Sink]

    def get(self, content_hashes: Collection[str]) -> dict[str, np.ndarray]:
        """Look into the cache, then into one store after the other."""
        found = dict(self.cache.get(content_hashes))
        return found | _lent(content_hashes, found, self.lenders)

    def add(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep new vectors in the cache."""
        self.cache.add(vectors)


def _lent(
    content_hashes: Collection[str], found: Mapping[str, np.ndarray], lenders: Iterable[Sink]
) -> dict[str, np.ndarray]:
    """What is lacking of some vectors, from one store after the other; no more are taken than it needs."""
    lent: dict[str, np.ndarray] = {}
    lacking = set(content_hashes) - found.keys()
    for sink in lenders if lacking else ():
        with contextlib.suppress(PipelineError):
            lent |= sink.vectors(sorted(lacking))
        lacking -= lent.keys()
        if not lacking:
            break
    return lent

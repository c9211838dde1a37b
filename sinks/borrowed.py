"""Vectors that another store holds: what was paid for is not paid for again (I9)."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
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
        borrowed: dict[str, np.ndarray] = {}
        for config in self.others:
            lacking = sorted(set(content_hashes) - found.keys() - borrowed.keys())
            if lacking:
                with (
                    closing(open_sink(config, self.fingerprint, self.dimensions)) as sink,
                    contextlib.suppress(PipelineError),
                ):
                    borrowed |= sink.vectors(lacking)
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
        for sink in self.lenders:
            if lacking := sorted(set(content_hashes) - found.keys()):
                with contextlib.suppress(PipelineError):
                    found |= sink.vectors(lacking)
        return found

    def add(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep new vectors in the cache."""
        self.cache.add(vectors)

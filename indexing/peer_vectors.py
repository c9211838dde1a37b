"""Vectors that another store holds: what was paid for is not paid for again (I9)."""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from schemas.errors import PipelineError
from sinks import SinkConfig, open_sink

if TYPE_CHECKING:
    import numpy as np

    from indexing.optimistic_writer import VectorCache
    from sinks.protocol import StoredVectors

PATIENCE_SECONDS = 5.0
"""How long a store may take to lend vectors: the store that lacks them waits meanwhile, and the model has them too."""
REST_SECONDS = 30.0
"""How long a store that lent nothing in time is not asked."""


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


class Lending(Protocol):
    """What may hold vectors of a model: a store, or a `Lender`."""

    @property
    def fingerprint(self) -> str:
        """The model."""

    def vectors(self, content_hashes: Sequence[str]) -> dict[str, np.ndarray]:
        """Those of the vectors that are there."""

    def close(self) -> None:
        """Let go of connections."""


class Lender:
    """Another store of this process, by connections of its own. One thread uses it.

    One that is away, or silent for `PATIENCE_SECONDS`, holds nothing, and is not asked again for `REST_SECONDS`.
    """

    def __init__(self, sink: StoredVectors) -> None:
        """Take the store; nothing is opened yet."""
        self._sink = copy.deepcopy(sink)
        self._rests_until = 0.0

    @property
    def fingerprint(self) -> str:
        """The model."""
        return self._sink.fingerprint

    def vectors(self, content_hashes: Sequence[str]) -> dict[str, np.ndarray]:
        """Those of the vectors that the store gives in time."""
        if time.monotonic() < self._rests_until:
            return {}
        request = _Request(self._sink, content_hashes)
        if not request.done.wait(PATIENCE_SECONDS):
            request.close_after = True
            self._sink = copy.deepcopy(self._sink)  # the former's connections are in use until that store answers
        if request.vectors is None:
            self._rests_until = time.monotonic() + REST_SECONDS
        return request.vectors or {}

    def close(self) -> None:
        """Close connections; the next call opens others."""
        self._sink.close()


class _Request:
    """One call of a store, in a thread that keeps no process from ending."""

    def __init__(self, sink: StoredVectors, content_hashes: Sequence[str]) -> None:
        self.vectors: dict[str, np.ndarray] | None = None
        """None while there is no answer, and where that is an error."""
        self.close_after = False
        self.done = threading.Event()
        threading.Thread(target=self._run, args=(sink, content_hashes), daemon=True, name=f"lender-{sink.name}").start()

    def _run(self, sink: StoredVectors, content_hashes: Sequence[str]) -> None:
        try:
            with contextlib.suppress(PipelineError):
                self.vectors = sink.vectors(content_hashes)
        finally:
            self.done.set()
            if self.close_after:
                sink.close()


@dataclass(frozen=True)
class Borrowing:
    """A `VectorCache` in memory that asks other stores for what it lacks; a store that is away holds nothing."""

    cache: VectorCache
    lenders: Sequence[Lending]

    def get(self, content_hashes: Collection[str]) -> dict[str, np.ndarray]:
        """Look into the cache, then into one store after the other."""
        found = dict(self.cache.get(content_hashes))
        return found | _lent(content_hashes, found, self.lenders)

    def add(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep new vectors in the cache."""
        self.cache.add(vectors)


def _lent(
    content_hashes: Collection[str], found: Mapping[str, np.ndarray], lenders: Iterable[Lending]
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

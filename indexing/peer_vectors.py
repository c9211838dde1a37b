"""Peer vectors: taken from another store of the pipeline before the model is asked, so no text is paid for twice (I9)."""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.errors import PipelineError
from sinks import SinkConfig, open_sink

if TYPE_CHECKING:
    import numpy as np

    from indexing.missing_vectors import VectorCache
    from sinks.protocol import StoredVectors

PATIENCE_SECONDS = 5.0
"""How long a peer may take to answer: the store that lacks the vectors waits meanwhile, and the model has them too."""
REST_SECONDS = 30.0
"""How long a peer that did not answer in time is not asked."""


@dataclass(frozen=True)
class CachedPeerVectors:
    """A `VectorCache` that asks other stores of the same model for what a cache lacks, and adds that to the cache.

    It pickles: the stores are opened for each call. One that is away or was never filled has no vectors.
    """

    cache: VectorCache
    others: tuple[SinkConfig, ...]
    fingerprint: str
    dimensions: int

    def get(self, content_hashes: Collection[str]) -> dict[str, np.ndarray]:
        """Look into the cache, then into one store after the other."""
        known = dict(self.cache.get(content_hashes))
        with contextlib.ExitStack() as open_stores:
            opened = (open_sink(config, self.fingerprint, self.dimensions) for config in self.others)
            new = _from_peers(content_hashes, known, (open_stores.enter_context(closing(sink)) for sink in opened))
        if new:
            self.cache.add(new)
        return known | new

    def add(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep new vectors in the cache."""
        self.cache.add(vectors)


class Peer:
    """Another store of this process, by connections of its own. One thread uses it.

    One that is away, or silent for `PATIENCE_SECONDS`, has no vectors, and is not asked again for `REST_SECONDS`.
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
        """The vectors that the store has of these and returns in time."""
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
        """None until the call returns, and where it fails."""
        self.close_after = False
        self.done = threading.Event()
        threading.Thread(target=self._run, args=(sink, content_hashes), daemon=True, name=f"peer-{sink.name}").start()

    def _run(self, sink: StoredVectors, content_hashes: Sequence[str]) -> None:
        try:
            with contextlib.suppress(PipelineError):
                self.vectors = sink.vectors(content_hashes)
        finally:
            self.done.set()
            if self.close_after:
                sink.close()


@dataclass(frozen=True)
class PeerVectors:
    """A `VectorCache` that asks peers for what a cache lacks; what they have does not go into the cache."""

    cache: VectorCache
    peers: Sequence[Peer]

    def get(self, content_hashes: Collection[str]) -> dict[str, np.ndarray]:
        """Look into the cache, then into one store after the other."""
        known = dict(self.cache.get(content_hashes))
        return known | _from_peers(content_hashes, known, self.peers)

    def add(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep new vectors in the cache."""
        self.cache.add(vectors)


def _from_peers(
    content_hashes: Collection[str], known: Mapping[str, np.ndarray], peers: Iterable[Peer | StoredVectors]
) -> dict[str, np.ndarray]:
    """The vectors that are not known yet, from one store after the other until none is missing."""
    vectors: dict[str, np.ndarray] = {}
    missing = set(content_hashes) - known.keys()
    for peer in peers if missing else ():
        with contextlib.suppress(PipelineError):
            vectors |= peer.vectors(sorted(missing))
        missing -= vectors.keys()
        if not missing:
            break
    return vectors

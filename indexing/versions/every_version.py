"""A store that is being moved to another model: all work goes to every index version, with vectors of that version's model."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import add

from embeddings.protocol import Embedder, EmbeddingCounts
from schemas.errors import ConfigurationError
from sinks.protocol import Sink
from sinks.versions import IndexVersion, IndexVersions

type Embedders = Callable[[IndexVersion], Embedder]
"""Opens the model of an index version that is not the writer's own."""
MOST_OTHERS = 4
"""Models of other index versions that a process keeps open."""


def own_model_alone(index_version: IndexVersion) -> Embedder:
    """For a writer that can open no other model."""
    raise ConfigurationError(
        f"index version {index_version.number} of the store is filled by another model ({index_version.fingerprint})",
        condition="OTHER_MODEL",
        hint="write by `ragstream run`, which opens every model that the store has an index version of",
    )


class Models:
    """The models a process embeds with: the pipeline's own, and those of other index versions. Any thread may call it.

    The `MOST_OTHERS` others that were used last stay open.
    """

    def __init__(self, own: Embedder, embedders: Embedders = own_model_alone) -> None:
        """Take the own model, and what opens another."""
        self._own, self._embedders = own, embedders
        self._others: OrderedDict[str, Embedder] = OrderedDict()
        self._closed = EmbeddingCounts()
        self._lock = threading.Lock()

    def of(self, index_version: IndexVersion) -> Embedder:
        """The model of an index version, opened once for all stores."""
        with self._lock:
            if index_version.fingerprint not in self._others:
                self._others[index_version.fingerprint] = self._embedders(index_version)
            self._others.move_to_end(index_version.fingerprint)
            while len(self._others) > MOST_OTHERS:
                self._closed += self._others.popitem(last=False)[1].counts()
            return self._others[index_version.fingerprint]

    def counts(self) -> EmbeddingCounts:
        """The requests to all of them in this process."""
        with self._lock:
            return reduce(add, (other.counts() for other in self._others.values()), self._own.counts() + self._closed)


@dataclass
class EveryIndexVersion:
    """Writes to all index versions of one store that are written, the active one last.

    The versions are read again after each work unit, before it counts as done, and it is written again if one was announced
    meanwhile. So every unit is in each version that was announced before it, or was written before the announcement, where
    the backfill reads it.
    """

    embedder: Embedder
    embedders: Embedders = own_model_alone
    _versions: IndexVersions | None = None

    def write(self, sink: Sink, work: Callable[[Sink, Embedder], None]) -> None:
        """Do work in every index version, again where they have changed meanwhile; the work must be idempotent."""
        versions = self._versions or sink.index_versions()
        while True:
            try:
                written = _written(sink, versions)
                models = [self.embedder if version is None else self.embedders(version) for _, version in written]
                for (store, _), embedder in zip(written, models, strict=True):
                    work(store, embedder)
            except ConfigurationError:
                now = sink.index_versions()
                if _same(now, versions):
                    raise
            else:
                now = sink.index_versions()
                if _same(now, versions):
                    self._versions = now
                    return
            versions = now


def each_written(sink: Sink) -> list[Sink]:
    """The store once for each index version that is written."""
    return [store for store, _ in _written(sink, sink.index_versions())]


def _written(sink: Sink, versions: IndexVersions | None) -> list[tuple[Sink, IndexVersion | None]]:
    """The store of each index version that is written, and the version where it is not the store's own."""
    if versions is None:
        return [(sink, None)]
    own = sink.fingerprint
    return [(sink, None) if v.fingerprint == own else (sink.sibling(v), v) for v in versions.written]


def _same(one: IndexVersions | None, other: IndexVersions | None) -> bool:
    """Whether the same index versions are written."""
    numbers = [None if versions is None else {v.number for v in versions.written} for versions in (one, other)]
    return numbers[0] == numbers[1]

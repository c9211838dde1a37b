"""A store that is being moved to another model: each piece of work goes to every index version, with vectors of its own model."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from embeddings.protocol import EmbeddingCounts
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from embeddings.protocol import Embedder
    from sinks.protocol import Sink
    from sinks.versions import IndexVersion, IndexVersions

type Embedders = Callable[[IndexVersion], Embedder]
"""Opens the model of an index version that is not the writer's own."""
MOST_OTHERS = 4
"""Models of other index versions that a process keeps open."""


def own_model_alone(index_version: IndexVersion) -> Embedder:
    """For a writer that was told of no way to other models."""
    raise ConfigurationError(
        f"index version {index_version.number} of the store is filled by another model ({index_version.fingerprint})",
        condition="OTHER_MODEL",
        hint="write by `ragstream run`, which knows every model that the store tells of",
    )


class Models:
    """The models a process embeds with: the pipeline's own, and those of other index versions. Any thread may call it.

    Of the others, those that were used last stay open; a pipeline is moved to another model now and then.
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

    def asked(self) -> EmbeddingCounts:
        """What all of them were asked in this process."""
        with self._lock:
            return reduce(add, (each.counts() for each in self._others.values()), self._own.counts() + self._closed)


@dataclass
class EveryIndexVersion:
    """Writes to all index versions of one store that are written, the one that readers use last.

    The index versions are looked at again after each piece of work, before it counts as done; it is done again where one was
    announced meanwhile. So whatever a writer has done stands in each index version that was announced before, or was written
    before the announcement, where the catch-up finds it.
    """

    embedder: Embedder
    embedders: Embedders = own_model_alone
    _known: IndexVersions | None = None

    def write(self, sink: Sink, work: Callable[[Sink, Embedder], None]) -> None:
        """Do a piece of work, as often as it takes; it must not mind being done again."""
        known = self._known or sink.index_versions()
        while True:
            try:
                for one, embedder in self._writers(sink, known):
                    work(one, embedder)
            except ConfigurationError:
                now = sink.index_versions()
                if _same(now, known):
                    raise
            else:
                now = sink.index_versions()
                if _same(now, known):
                    self._known = now
                    return
            known = now

    def _writers(self, sink: Sink, known: IndexVersions | None) -> list[tuple[Sink, Embedder]]:
        found = []
        for each in known.written if known else ():
            if each.fingerprint == sink.fingerprint:
                found.append((sink, self.embedder))
            else:
                found.append((sink.sibling(each), self.embedders(each)))
        return found if known else [(sink, self.embedder)]


def each_written(sink: Sink) -> list[Sink]:
    """The store once for each index version that is written."""
    known = sink.index_versions()
    if known is None:
        return [sink]
    return [sink if each.fingerprint == sink.fingerprint else sink.sibling(each) for each in known.written]


def _same(now: IndexVersions | None, known: IndexVersions | None) -> bool:
    """Whether the same index versions are written."""
    told = [None if each is None else {g.number for g in each.written} for each in (now, known)]
    return told[0] == told[1]

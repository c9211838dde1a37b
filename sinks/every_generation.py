"""A store that is being moved to another model: each piece of work goes to every generation, with vectors of its own model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from embeddings.protocol import Embedder
    from sinks.generations import Generation, Generations
    from sinks.protocol import Sink

type Embedders = Callable[[Generation], Embedder]
"""Opens the model of a generation that is not the writer's own."""


def own_model_alone(generation: Generation) -> Embedder:
    """For a writer that was told of no way to other models."""
    raise ConfigurationError(
        f"generation {generation.number} of the store is filled by another model ({generation.fingerprint})",
        condition="OTHER_MODEL",
        hint="write by `ragstream run`, which knows every model that the store tells of",
    )


@dataclass
class EveryGeneration:
    """Writes to all generations of one store that are written, the one that readers use last.

    The generations are looked at again after each piece of work, before it counts as done; it is done again where one was
    announced meanwhile. So whatever a writer has done stands in each generation that was announced before, or was written
    before the announcement, where the catch-up finds it.
    """

    embedder: Embedder
    embedders: Embedders = own_model_alone
    _known: Generations | None = None
    _opened: dict[int, Embedder] = field(default_factory=dict)

    def write(self, sink: Sink, work: Callable[[Sink, Embedder], None]) -> None:
        """Do a piece of work, as often as it takes; it must not mind being done again."""
        known = self._known or sink.generations()
        while True:
            try:
                for one, embedder in self._writers(sink, known):
                    work(one, embedder)
            except ConfigurationError:
                now = sink.generations()
                if _same(now, known):
                    raise
            else:
                now = sink.generations()
                if _same(now, known):
                    self._known = now
                    return
            known = now

    def embedders_used(self) -> list[Embedder]:
        """The models of other generations that were written."""
        return list(self._opened.values())

    def _writers(self, sink: Sink, known: Generations | None) -> list[tuple[Sink, Embedder]]:
        found = []
        for each in known.written if known else ():
            if each.fingerprint == sink.fingerprint:
                found.append((sink, self.embedder))
            else:
                if each.number not in self._opened:
                    self._opened[each.number] = self.embedders(each)
                found.append((sink.beside(each), self._opened[each.number]))
        return found if known else [(sink, self.embedder)]


def each_written(sink: Sink) -> list[Sink]:
    """The store once for each generation that is written."""
    known = sink.generations()
    if known is None:
        return [sink]
    return [sink if each.fingerprint == sink.fingerprint else sink.beside(each) for each in known.written]


def _same(now: Generations | None, known: Generations | None) -> bool:
    """Whether the same generations are written."""
    told = [None if each is None else {g.number for g in each.written} for each in (now, known)]
    return told[0] == told[1]

"""The index version of a store that answers at this moment, and the model that fills it: one decision for both.

A store is moved to another model by one change of its meta. Each question reads it once, then asks that index version alone with
a vector of that generation's model; one that is not the serving one any more is kept, so a question under way is answered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from embeddings import open_embedder
from embeddings.registry import config_of
from retrieval.fusion import relevance_of
from retrieval.search import Searcher
from schemas.errors import ConfigurationError
from sinks import open_index

if TYPE_CHECKING:
    from embeddings import EmbeddingConfig
    from sinks import SinkConfig
    from sinks.versions import IndexVersion


class Serving:
    """A store as readers find it; holds the connection of one index version. Not for several threads at once."""

    def __init__(self, sink: SinkConfig, embedding: EmbeddingConfig, relevance: float | None = None) -> None:
        """Take the store, the model of the pipeline, and the least similarity of an answer; nothing is opened yet."""
        self._relevance = relevance
        self._sink = sink
        self._embedding = embedding
        self._door = open_index(sink, open_embedder(embedding).fingerprint)
        self._number: int | None = None
        self.model = embedding.model
        """The name of the model that answered last."""
        self._searcher: Searcher | None = None

    def searcher(self) -> Searcher:
        """The searcher of the index version that serves now."""
        served = self._door.index_versions().active
        if self._searcher is None or self._number != served.number:
            self._close_searcher()
            self._searcher, self._number = self.searcher_of(served), served.number
            self.model = config_of(served, self._embedding).model
        return self._searcher

    def searcher_of(self, index_version: IndexVersion) -> Searcher:
        """A searcher of one index version, for the caller to close."""
        config = config_of(index_version, self._embedding)
        index = open_index(self._sink, index_version.fingerprint, index_version.number)
        return Searcher(index, open_embedder(config), relevance_of(config.model, self._relevance))

    def asking[T](self, work: Callable[[Searcher], T]) -> T:
        """Ask the index version that serves; once more where it was dropped meanwhile."""
        while True:
            searcher = self.searcher()
            try:
                return work(searcher)
            except ConfigurationError:
                if self.searcher() is searcher:
                    raise

    def close(self) -> None:
        """Let go of connections."""
        self._door.close()
        self._close_searcher()

    def _close_searcher(self) -> None:
        if self._searcher is not None:
            self._searcher.index.close()
        self._searcher = None

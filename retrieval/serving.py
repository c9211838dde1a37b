"""The active index version of a store and the model that fills it, chosen together for each question.

A migration switches readers by one change of the store's meta. Each question reads it once, then searches that index version
alone with a vector of its model. The version before is kept for a time, so a question in progress is still answered.
"""

from __future__ import annotations

from collections.abc import Callable

from embeddings import EmbeddingConfig, open_embedder
from embeddings.registry import config_of
from reranking import RerankingConfig, open_reranker
from retrieval.fusion import tuning_of
from retrieval.search import Searcher
from schemas.errors import ConfigurationError
from sinks import SinkConfig, open_index
from sinks.versions import IndexVersion


class ActiveIndex:
    """Searches the active index version of a store, over one connection to it. Not thread-safe."""

    def __init__(
        self,
        sink: SinkConfig,
        embedding: EmbeddingConfig,
        relevance: float | None = None,
        reranking: RerankingConfig | None = None,
    ) -> None:
        """Connects on first use. `relevance` is the least similarity of an answer (None: as measured)."""
        self._relevance = relevance
        self._reranker = None if reranking is None else open_reranker(reranking)
        self.store = sink
        """The store's configuration."""
        self._embedding = embedding
        self._any_version = open_index(sink, open_embedder(embedding).fingerprint)
        self._version: IndexVersion | None = None
        self.model = embedding.model
        """The name of the model of the last question."""
        self._searcher: Searcher | None = None

    def searcher(self) -> Searcher:
        """The searcher of the index version that is active now."""
        active = self._any_version.index_versions().active
        if self._searcher is None or self._version != active:
            self._close_searcher()
            self._searcher, self._version = self.searcher_of(active), active
            self.model = config_of(active, self._embedding).model
        return self._searcher

    def searcher_of(self, index_version: IndexVersion) -> Searcher:
        """A searcher of one index version; the caller closes its index."""
        config = config_of(index_version, self._embedding)
        index = open_index(self.store, index_version.fingerprint, index_version.number)
        tuning = tuning_of(config.model, index_version.calibration, self._relevance)
        return Searcher(index, open_embedder(config), tuning, self._reranker)

    def run[T](self, work: Callable[[Searcher], T]) -> T:
        """Run work on the active index version, again if another one became active and this one was dropped."""
        while True:
            searcher = self.searcher()
            try:
                return work(searcher)
            except ConfigurationError:
                if self.searcher() is searcher:
                    raise

    def close(self) -> None:
        """Close connections."""
        self._any_version.close()
        self._close_searcher()

    def _close_searcher(self) -> None:
        if self._searcher is not None:
            self._searcher.index.close()
        self._searcher = None

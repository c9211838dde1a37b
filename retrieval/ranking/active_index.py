"""The active index version of a store and the model that fills it, chosen together for each question.

A migration switches readers by one change of the store's meta. Each question reads that once: before it searches, or by the
search itself, whose result counts only if it is of the active index version. The version before is kept for a time, so a question
in progress is still answered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from embeddings import EmbeddingConfig, open_embedder
from embeddings.pool import Pool
from embeddings.registry import config_of
from reranking import RerankingConfig, open_reranker
from retrieval.ranking.fusion import tuning_of
from retrieval.ranking.search import Searcher, SearchResult
from schemas.errors import ConfigurationError
from sinks import SinkConfig, open_index
from sinks.pooled import PooledIndex
from sinks.search import Filters
from sinks.versions import FIRST, IndexVersion


@dataclass(frozen=True, slots=True)
class _Active:
    version: IndexVersion
    searcher: Searcher
    model: str


class ActiveIndex:
    """Searches the active index version of a store, over a bounded number of connections to it. Thread-safe."""

    def __init__(
        self,
        sink: SinkConfig,
        embedding: EmbeddingConfig,
        relevance: float | None = None,
        reranking: RerankingConfig | None = None,
        connections: int = 1,
    ) -> None:
        """Connects on first use. `relevance` is the least similarity of an answer (None: as measured)."""
        self._relevance = relevance
        self._reranker = None if reranking is None else open_reranker(reranking)
        self.store = sink
        """The store's configuration."""
        self._embedding = embedding
        self._connections = connections
        self._any_version = self._opened(open_embedder(embedding).fingerprint, FIRST, 1)
        self._switching = threading.Lock()
        self._active: _Active | None = None

    @property
    def model(self) -> str:
        """The name of the model of the last question."""
        active = self._active
        return self._embedding.model if active is None else active.model

    def searcher(self) -> Searcher:
        """The searcher of the index version that is active now."""
        before = self._active
        version = self._first_version() if before is None else before.searcher.index.index_versions().active
        with self._switching:
            before = self._active
            if before is None or before.version != version:
                self._active = _Active(version, self.searcher_of(version), config_of(version, self._embedding).model)
            active = self._active or before
            assert active is not None  # noqa: S101 - it was set
        if before is not None and active is not before:
            before.searcher.index.close()  # a question in progress gives its connection back to be closed
        return active.searcher

    def searcher_of(self, index_version: IndexVersion) -> Searcher:
        """A searcher of one index version; the caller closes its index."""
        config = config_of(index_version, self._embedding)
        index = self._opened(index_version.fingerprint, index_version.number, self._connections)
        tuning = tuning_of(config.model, index_version.calibration, self._relevance)
        return Searcher(index, open_embedder(config), tuning, self._reranker)

    def search(self, text: str, k: int, filters: Filters) -> SearchResult:
        """Search the index version that was active last; again, if the search itself reads that another one is."""
        last = self._active
        if last is not None:
            with suppress(ConfigurationError):  # it may be dropped; else the search below raises it
                result = last.searcher.search(text, k, filters)
                if result.active is None or result.active == last.version:
                    return result
        return self.run(lambda searcher: searcher.search(text, k, filters))

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
        """Close connections; the next question opens others."""
        active = self._active
        if active is not None:
            active.searcher.index.close()

    def _first_version(self) -> IndexVersion:
        """The active index version, read by a connection that is not kept beside those that search."""
        try:
            return self._any_version.index_versions().active
        finally:
            self._any_version.close()

    def _opened(self, fingerprint: str, number: int, connections: int) -> PooledIndex:
        opened = partial(open_index, self.store, fingerprint, number)
        return PooledIndex(Pool(f"sink {self.store.name}", opened, connections))

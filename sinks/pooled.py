"""An index for many threads: several connections, each used by one thread at a time."""

from __future__ import annotations

from collections.abc import Sequence

from embeddings.pool import Pool
from sinks.search import ANYTHING, Candidates, Filters, Freshness, Hit, Index, Question, VisibleDocument
from sinks.versions import IndexVersions


class PooledIndex:
    """An `Index` over several of one kind. Thread-safe; a call does not outlast the connection that it took."""

    def __init__(self, pool: Pool[Index]) -> None:
        """Its indexes read the same index version."""
        self._pool = pool

    def check(self) -> None:
        """See `Index`."""
        self._pool.run(lambda index: index.check())

    def index_versions(self) -> IndexVersions:
        """See `Index`."""
        return self._pool.run(lambda index: index.index_versions())

    def search(self, question: Question, k: int, filters: Filters = ANYTHING) -> Candidates:
        """See `Index`."""
        return self._pool.run(lambda index: index.search(question, k, filters))

    def dense(self, question: Question, k: int, filters: Filters = ANYTHING) -> list[Hit]:
        """See `Index`."""
        return self._pool.run(lambda index: index.dense(question, k, filters))

    def lexical(self, question: Question, k: int, filters: Filters = ANYTHING) -> list[Hit]:
        """See `Index`."""
        return self._pool.run(lambda index: index.lexical(question, k, filters))

    def coverage(self, question: str, texts: Sequence[str]) -> list[float]:
        """See `Index`."""
        return self._pool.run(lambda index: index.coverage(question, texts))

    def live(self, chunk_ids: Sequence[str], filters: Filters = ANYTHING) -> set[str]:
        """See `Index`."""
        return self._pool.run(lambda index: index.live(chunk_ids, filters))

    def versions(self, document_ids: Sequence[str], filters: Filters = ANYTHING) -> dict[str, str]:
        """See `Index`."""
        return self._pool.run(lambda index: index.versions(document_ids, filters))

    def document(self, document_id: str, filters: Filters = ANYTHING) -> VisibleDocument | None:
        """See `Index`."""
        return self._pool.run(lambda index: index.document(document_id, filters))

    def freshness(self) -> Freshness:
        """See `Index`."""
        return self._pool.run(lambda index: index.freshness())

    def close(self) -> None:
        """Close the connections; the next call opens others."""
        self._pool.close()

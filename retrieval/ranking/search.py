"""Hybrid search: dense and lexical hits in one ranking, and whether any of them is relevant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embeddings.protocol import Embedder
from reranking import Reranker
from retrieval.ranking.fusion import Ranked, Tuning, fuse
from retrieval.ranking.rerank import reranked
from schemas.errors import ConfigurationError
from sinks.search import ANYTHING, Filters, Freshness, Index, Question
from sinks.versions import IndexVersion
from transforms.documents.words import is_blank
from transforms.values import exact_json
from transforms.values.times import moment

_CLOCKS_DIFFER_US = 60_000_000
"""The greatest difference between the clocks of a store and of its writers, in microseconds."""

UNKNOWN_FRESHNESS: Mapping[str, Any] = {"searchable_as_of": None, "lag_seconds": None}
"""The freshness in JSON, where it is not known."""

CANDIDATES = 50
"""The least number of documents that each half of a search contributes to the fusion."""

MOST_CHARACTERS = 250_000
"""Characters of a question: PostgreSQL takes 1 MiB of distinct words ("Text Search", 12.11), at up to four bytes a character."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The results of a search, best first, one hit a document."""

    question: Question | None
    """None for a blank text."""
    results: tuple[Ranked, ...]
    relevant: tuple[Ranked, ...]
    """The results that pass the threshold of relevance."""
    freshness: Freshness
    not_reranked: str = ""
    """Why the results are in no reranker's order though there is one: the condition of its error."""
    active: IndexVersion | None = None
    """The store's active index version when it was searched, whichever was; None for a blank text."""

    @property
    def abstained(self) -> bool:
        """Whether no result is relevant."""
        return not self.relevant


class Searcher:
    """Searches one index with one embedding model. Stateless between questions."""

    def __init__(self, index: Index, embedder: Embedder, tuning: Tuning, reranker: Reranker | None = None) -> None:
        self.index = index
        self.embedder = embedder
        self.tuning = tuning
        self.reranker = reranker

    def question(self, text: str) -> Question | None:
        """Embed a question; None for a blank text.

        Raises:
            ConfigurationError: the text is longer than `MOST_CHARACTERS`.
            EmbeddingRejectedError: the model refuses the text, or answers without a usable vector.
        """
        if len(text) > MOST_CHARACTERS:
            raise ConfigurationError(
                f"the question has {len(text)} characters, and {MOST_CHARACTERS} are taken",
                condition="QUESTION_TOO_LONG",
                hint="ask with a part of it",
            )
        text = exact_json.printable(text)
        return None if is_blank(text) else Question(text, self.embedder.embed_query(text))

    def search(self, text: str, k: int, filters: Filters = ANYTHING) -> SearchResult:
        """Find at most k documents; none for a blank text. Raises as `question`."""
        return self.results(self.question(text), k, filters)

    def results(self, question: Question | None, k: int, filters: Filters = ANYTHING) -> SearchResult:
        """Find at most k documents for an embedded question.

        The freshness is read first, so everything committed up to it was searched.
        """
        if question is None:
            return SearchResult(None, (), (), self.index.freshness())
        candidates = self.index.search(question, max(k, CANDIDATES), filters)
        fused = fuse(candidates.dense, candidates.lexical, fusion=self.tuning.fusion)
        ordered = reranked(self.reranker, question.text, fused, k)
        results = tuple(ordered.hits)
        relevant = tuple(ranked for ranked in results if self.tuning.relevance.accepts(ranked.hit))
        return SearchResult(question, results, relevant, candidates.freshness, ordered.not_reranked, candidates.active)


def search_answer(query_id: str | None, result: SearchResult) -> dict[str, Any]:
    """The JSON object of `ragstream search`."""
    return {
        "query_id": query_id,
        "abstained": result.abstained,
        "results": [_result(ranked) for ranked in result.results],
        "not_reranked": result.not_reranked or None,
        "freshness": freshness_answer(result.freshness),
    }


def freshness_answer(freshness: Freshness) -> dict[str, Any]:
    """The freshness in JSON: every commit up to `searchable_as_of` is searchable; nulls while unknown.

    A time in the future, as older versions stored for a commit with one, counts as unknown.
    """
    as_of_us = freshness.indexed_as_of_us
    if as_of_us is None or as_of_us > freshness.now_us + _CLOCKS_DIFFER_US:
        return dict(UNKNOWN_FRESHNESS)
    lag = max(0.0, (freshness.now_us - as_of_us) / 1e6)
    return {"searchable_as_of": moment(as_of_us).isoformat(timespec="milliseconds"), "lag_seconds": round(lag, 3)}


def _result(ranked: Ranked) -> dict[str, Any]:
    hit = ranked.hit
    return {
        "document_id": hit.document_id,
        "table": hit.table,
        "key": hit.key,
        "chunk_index": hit.chunk_index,
        "chunk_text": hit.chunk_text,
        "version": hit.version,
        "score": round(ranked.score, 4),
    }

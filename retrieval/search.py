"""Hybrid search: the nearest chunks in meaning and in words, in one order, with an honest word on whether any is relevant."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retrieval.fusion import Ranked, Relevance, fuse
from schemas.errors import ConfigurationError
from sinks.search import ANYTHING, Filters, Freshness, Question
from transforms.documents.words import is_blank
from transforms.values import exact_json

if TYPE_CHECKING:
    from embeddings.protocol import Embedder
    from sinks.search import Index

_CLOCKS_DIFFER_US = 60_000_000
"""How far the clocks of a store and of its writers may differ."""

CANDIDATES = 50
"""Documents that each half of a search brings to the fusion, at least."""

MOST_CHARACTERS = 250_000
"""Of a question: PostgreSQL takes a mebibyte of distinct words ("Text Search", 12.11), and a character is four bytes at most."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found, best first, one hit a document."""

    question: Question | None
    """None for a text without a visible character."""
    results: tuple[Ranked, ...]
    relevant: tuple[Ranked, ...]
    """Those results that may be answered from."""
    freshness: Freshness

    @property
    def abstained(self) -> bool:
        """Whether nothing relevant was found; the results are then only the nearest there are."""
        return not self.relevant


class Searcher:
    """Searches one index with one embedding model; holds nothing between two questions."""

    def __init__(self, index: Index, embedder: Embedder, relevance: Relevance) -> None:
        """Take the parts."""
        self.index = index
        self.embedder = embedder
        self.relevance = relevance

    def search(self, text: str, k: int, filters: Filters = ANYTHING) -> Found:
        """Find at most k documents.

        The freshness is read first: everything committed up to it is in what is found. A blank text finds nothing.

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
        freshness = self.index.freshness()
        text = exact_json.printable(text)
        if is_blank(text):
            return Found(None, (), (), freshness)
        question = Question(text, self.embedder.embed_query(text))
        candidates = max(k, CANDIDATES)
        dense = self.index.dense(question, candidates, filters)
        lexical = self.index.lexical(question, candidates, filters)
        results = tuple(fuse(dense, lexical)[:k])
        relevant = tuple(ranked for ranked in results if self.relevance.accepts(ranked.hit))
        return Found(question, results, relevant, freshness)


def search_answer(query_id: str | None, found: Found) -> dict[str, Any]:
    """A search as the JSON object of the public contract."""
    return {
        "query_id": query_id,
        "abstained": found.abstained,
        "results": [_result(ranked) for ranked in found.results],
        "freshness": freshness_answer(found.freshness),
    }


def freshness_answer(freshness: Freshness) -> dict[str, Any]:
    """How fresh an answer is: every commit up to `searchable_as_of` is searchable; nulls before that is known.

    A time of the future, as older versions kept for a commit that told one, says nothing.
    """
    as_of_us = freshness.indexed_as_of_us
    if as_of_us is None or as_of_us > freshness.now_us + _CLOCKS_DIFFER_US:
        return {"searchable_as_of": None, "lag_seconds": None}
    moment = dt.datetime.fromtimestamp(as_of_us / 1e6, dt.UTC)
    lag = max(0.0, (freshness.now_us - as_of_us) / 1e6)
    return {"searchable_as_of": moment.isoformat(timespec="milliseconds"), "lag_seconds": round(lag, 3)}


def _result(ranked: Ranked) -> dict[str, Any]:
    hit = ranked.hit
    return {
        "document_id": hit.document_id,
        "table": hit.table,
        "key": hit.key,
        "chunk_index": hit.chunk_index,
        "chunk_text": hit.chunk_text,
        "score": round(ranked.score, 4),
    }

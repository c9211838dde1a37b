"""What each way to search finds for labelled questions: one look at the store, everything else follows from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.golden import FIRST, GoldenQuestion, key_of
from retrieval.ranking.fusion import Fusion, Ranked, fuse
from retrieval.ranking.rerank import reranked
from retrieval.ranking.search import CANDIDATES
from schemas.errors import RejectedError
from sinks.search import Hit, Question

if TYPE_CHECKING:
    from reranking import Reranker
    from retrieval.ranking.search import Searcher

type Order = Sequence[Hit]
"""Hits, best first."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A labelled question, and what both halves of a search find for it."""

    golden: GoldenQuestion
    dense: Sequence[Hit]
    lexical: Sequence[Hit]

    def fused(self, fusion: Fusion) -> list[Ranked]:
        """Both halves in one ranking."""
        return fuse(self.dense, self.lexical, fusion=fusion)

    def is_expected(self, hit: Hit) -> bool:
        """Whether the row is labelled as one that answers."""
        return (hit.table, key_of(hit.key)) in self.golden.expected


def ask_all(searcher: Searcher, golden: Iterable[GoldenQuestion], on_done: Callable[[], object]) -> list[Asked]:
    """Search once for each question; one that the model refuses finds nothing."""
    asked = []
    for labelled in golden:
        try:
            question = Question(labelled.query, searcher.embedder.embed_query(labelled.query))
            halves = searcher.index.dense(question, CANDIDATES), searcher.index.lexical(question, CANDIDATES)
        except RejectedError:
            halves = [], []
        asked.append(Asked(labelled, *halves))
        on_done()
    return asked


def ways(asked: Sequence[Asked], fusion: Fusion, reranker: Reranker | None = None) -> dict[str, list[Order]]:
    """The rankings of every way to search, in the order of the questions; `reranked` where there is a reranker."""
    fused = [question.fused(fusion) for question in asked]
    orders: dict[str, list[Order]] = {
        "dense": [question.dense for question in asked],
        "lexical": [question.lexical for question in asked],
        "hybrid": [[ranked.hit for ranked in order] for order in fused],
    }
    if reranker is not None:
        anew = [
            reranked(reranker, question.golden.query, order, FIRST).hits
            for question, order in zip(asked, fused, strict=True)
        ]
        orders["reranked"] = [[ranked.hit for ranked in order] for order in anew]
    return orders

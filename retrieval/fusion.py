"""Fusion of dense and lexical hits into one ranking, and the threshold of relevance. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sinks.search import Hit

COVERAGE_WEIGHT = 0.6
"""The weight of coverage relative to the cosine. Quality is flat between 0.5 and 1.0 on the helpdesk's labelled questions
(`make bench-search_quality`); ranks with equal weights (reciprocal rank fusion) were worse than either half."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A hit and its score, 1 for a chunk that is the question word for word."""

    hit: Hit
    score: float


@dataclass(frozen=True, slots=True)
class Relevance:
    """The least similarity of a relevant chunk, as a function of its coverage.

    A part number that the row contains is evidence even with a low similarity; a vague similarity without a common word is not.
    """

    alone: float
    """Similarity that suffices without a common word."""
    base: float
    """Similarity needed at coverage 0, before `alone` caps it."""
    per_coverage: float
    """Reduction of that at full coverage."""
    least: float
    """Similarity that is needed at any coverage."""

    def needed(self, coverage: float) -> float:
        """Return the similarity that a chunk of this coverage needs."""
        return max(self.least, min(self.alone, self.base - self.per_coverage * coverage))

    def accepts(self, hit: Hit) -> bool:
        """Whether a chunk is relevant."""
        return hit.similarity >= self.needed(hit.coverage)


MINILM = Relevance(alone=0.48, base=0.60, per_coverage=0.5, least=0.15)
"""Measured on the helpdesk's labelled questions with all-MiniLM-L6-v2: `make bench-search_quality` prints how many
answerable questions it refuses and how many others it lets through."""

RELEVANCE = {"all-minilm-l6-v2": MINILM}
"""By model name in lower case: those that were measured. Others start from MiniLM's figures, which their cosines resemble
but which were not measured with them; `retrieval.min_similarity` replaces them."""


def relevance_of(model: str, least: float | None = None) -> Relevance:
    """Return the thresholds of a model; `least` replaces them by one similarity for every coverage."""
    if least is not None:
        return Relevance(alone=least, base=least, per_coverage=0.0, least=least)
    return RELEVANCE.get(model.lower(), MINILM)


def fuse(*lists: Iterable[Hit], coverage_weight: float = COVERAGE_WEIGHT) -> list[Ranked]:
    """Rank the hits of several searches by a convex combination of similarity and coverage; one chunk a document stays.

    Rare words decide where a chunk contains them, meaning decides elsewhere. Ties are broken by document and place, so the
    same hits always have the same order.
    """
    best: dict[str, Ranked] = {}
    for hit in (hit for hits in lists for hit in hits):
        ranked = Ranked(hit, (hit.similarity + coverage_weight * hit.coverage) / (1 + coverage_weight))
        other = best.get(hit.document_id)
        if other is None or _order(ranked) < _order(other):
            best[hit.document_id] = ranked
    return sorted(best.values(), key=_order)


def _order(ranked: Ranked) -> tuple[float, str, int, float, float]:
    hit = ranked.hit
    return -ranked.score, hit.document_id, hit.chunk_index, -hit.similarity, -hit.coverage

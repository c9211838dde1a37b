"""What a question's nearness in meaning and its words say together: one order, and one verdict. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sinks.search import Hit

COVERAGE_WEIGHT = 0.6
"""What full coverage is worth in cosines. Flat between 0.5 and 1.0 on the helpdesk's labelled questions
(`make bench-search_quality`); ranks with equal weights (reciprocal rank fusion) were worse than either half."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A hit and its place: the score is 1 for a chunk that says the question word for word."""

    hit: Hit
    score: float


@dataclass(frozen=True, slots=True)
class Relevance:
    """Which similarity a chunk needs to be relevant, given how much of the question's information its words carry.

    A part number that stands in the row is evidence by itself, though its vector says little; and a vague resemblance
    without a word in common is none.
    """

    alone: float
    """Similarity that is enough without a common word."""
    base: float
    """Similarity that would be needed at coverage 0, were it not for `alone`."""
    per_coverage: float
    """How much less is needed for full coverage."""
    least: float
    """Similarity that is always needed."""

    def needed(self, coverage: float) -> float:
        """Return the similarity that a chunk of this coverage needs."""
        return max(self.least, min(self.alone, self.base - self.per_coverage * coverage))

    def accepts(self, hit: Hit) -> bool:
        """Say whether a chunk is relevant."""
        return hit.similarity >= self.needed(hit.coverage)


MINILM = Relevance(alone=0.48, base=0.60, per_coverage=0.5, least=0.15)
"""Measured on the helpdesk's labelled questions with all-MiniLM-L6-v2: `make bench-search_quality` prints how many
answerable questions it refuses and how many others it lets through."""

RELEVANCE = {"all-minilm-l6-v2": MINILM}
"""By model name in lower case: those that were measured. Others start from MiniLM's figures, which their cosines resemble
but which were not measured with them; `retrieval.min_similarity` replaces them."""


def relevance_of(model: str, least: float | None = None) -> Relevance:
    """Return the thresholds of a model; `least`, where it is given, is what every chunk needs, whatever its words."""
    if least is not None:
        return Relevance(alone=least, base=least, per_coverage=0.0, least=least)
    return RELEVANCE.get(model.lower(), MINILM)


def fuse(*lists: Iterable[Hit], coverage_weight: float = COVERAGE_WEIGHT) -> list[Ranked]:
    """Order the hits of several searches by similarity plus weighted coverage; each document's best chunk alone stays.

    A convex combination of the two scores, so that rare words decide where they stand and meaning decides elsewhere.
    Ties are broken by document and place: the same hits always come in the same order.
    """
    best: dict[str, Ranked] = {}
    for hit in (hit for hits in lists for hit in hits):
        ranked = Ranked(hit, (hit.similarity + coverage_weight * hit.coverage) / (1 + coverage_weight))
        held = best.get(hit.document_id)
        if held is None or _order(ranked) < _order(held):
            best[hit.document_id] = ranked
    return sorted(best.values(), key=_order)


def _order(ranked: Ranked) -> tuple[float, str, int, float, float]:
    hit = ranked.hit
    return -ranked.score, hit.document_id, hit.chunk_index, -hit.similarity, -hit.coverage

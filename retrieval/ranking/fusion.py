"""Fusion of dense and lexical hits into one ranking, and the threshold of relevance. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from schemas.errors import ConfigurationError
from sinks.search import Hit


@dataclass(frozen=True, slots=True)
class Fusion:
    """What a chunk's coverage adds to its similarity.

    Up to `floor` it adds nothing: such words are in any text, and a question that shares no word with its answer would be led
    astray by them. From `full` on it adds all of `weight`, and similarity decides between the chunks that have the words.
    """

    weight: float = 0.5
    floor: float = 0.45
    full: float = 0.7

    def score(self, similarity: float, coverage: float) -> float:
        """The score of a chunk, 1 at most."""
        share = min(1.0, max(0.0, (coverage - self.floor) / (self.full - self.floor)))
        return (similarity + self.weight * share) / (1 + self.weight)


FUSION = Fusion()
"""Measured with all-MiniLM-L6-v2 on labelled questions in the words of their answers and in others (`make bench-search_quality`):
no worse than similarity alone on the second, far better on the first. Ranks with equal weights (reciprocal rank fusion) and
coverage without a floor lose on the second."""


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
    """Similarity that is needed at any lesser coverage than `certain`."""
    certain: float = 1.1
    """Coverage from which on any similarity suffices: every word of the question, such as a serial number, is in the chunk."""

    def needed(self, coverage: float) -> float:
        """Return the similarity that a chunk of this coverage needs."""
        if coverage >= self.certain:
            return -1.0
        return max(self.least, min(self.alone, self.base - self.per_coverage * coverage))

    def accepts(self, hit: Hit) -> bool:
        """Whether a chunk is relevant."""
        return hit.similarity >= self.needed(hit.coverage)


MINILM = Relevance(alone=0.48, base=0.60, per_coverage=0.5, least=0.15, certain=0.99)
"""Measured on the helpdesk's labelled questions with all-MiniLM-L6-v2: `make bench-search_quality` prints how many
answerable questions it refuses and how many others it lets through."""

UNMEASURED = Relevance(alone=2.0, base=2.0, per_coverage=0.0, least=2.0)
"""Of a model whose similarities nobody measured: no chunk is relevant, as any threshold would be a guess."""

RELEVANCE = {"all-minilm-l6-v2": MINILM}
"""By model name in lower case: those that were measured. With others nothing is relevant until `ragstream evaluate
--calibrate` has measured them."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a model's similarities mean: when a chunk is relevant, and what words add to them."""

    relevance: Relevance
    fusion: Fusion = FUSION

    @property
    def is_measured(self) -> bool:
        """Whether questions are answered at all."""
        return self.relevance is not UNMEASURED

    def as_json(self) -> dict[str, Any]:
        """The JSON value that a store keeps."""
        return {"relevance": asdict(self.relevance), "fusion": asdict(self.fusion)}


def tuning_of(model: str, calibration: Mapping[str, Any] | None = None, least: float | None = None) -> Tuning:
    """What is used for a model: the calibration that its store keeps, else what was measured for its name.

    `least` replaces the thresholds by one similarity for every coverage.

    Raises:
        ConfigurationError: this release cannot read the calibration.
    """
    tuning = Tuning(RELEVANCE.get(model.lower(), UNMEASURED))
    if calibration is not None:
        try:
            tuning = Tuning(Relevance(**calibration["relevance"]), Fusion(**calibration["fusion"]))
        except (KeyError, TypeError):
            raise ConfigurationError(
                f"the calibration of {model} in the store is of another release", condition="CALIBRATION_UNKNOWN",
                hint="run `ragstream evaluate CONFIG GOLDEN.jsonl --calibrate` again",
            ) from None  # fmt: skip
    if least is None:
        return tuning
    return Tuning(Relevance(alone=least, base=least, per_coverage=0.0, least=least), tuning.fusion)


def fuse(*lists: Iterable[Hit], fusion: Fusion = FUSION) -> list[Ranked]:
    """Rank the hits of several searches by similarity and coverage; one chunk a document stays.

    Rare words decide where a chunk contains them, meaning decides elsewhere. Ties are broken by words, document and place, so the
    same hits always have the same order.
    """
    best: dict[str, Ranked] = {}
    for hit in (hit for hits in lists for hit in hits):
        ranked = Ranked(hit, fusion.score(hit.similarity, hit.coverage))
        other = best.get(hit.document_id)
        if other is None or _order(ranked) < _order(other):
            best[hit.document_id] = ranked
    return sorted(best.values(), key=_order)


def _order(ranked: Ranked) -> tuple[float, float, str, int, float]:
    hit = ranked.hit
    return -ranked.score, -hit.coverage, hit.document_id, hit.chunk_index, -hit.similarity

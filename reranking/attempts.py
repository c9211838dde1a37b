"""What the rerankers of providers have in common: batches, the retry layer, and the check of scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import batched

from embeddings.outcomes import Refused, Throttled, Unanswered
from embeddings.retrying import retrying
from reranking.errors import RerankingRejectedError, RerankingUnavailableError
from reranking.protocol import Reranker
from schemas.errors import ConfigurationError
from transforms.documents.words import is_blank

BLANK = "-"
"""Stands for a text without a character, which the services refuse."""

type Attempt = Callable[[Sequence[str]], Iterable[tuple[int, float]]]
"""Score at most a request's texts; yields places and scores, in any order."""


def scored(texts: Sequence[str], most: int, attempt: Attempt, seconds: float) -> list[float]:
    """The scores of all texts, `most` a request; raises as `Reranker` says."""
    try:
        return [score for batch in batched(texts, most) for score in retrying(seconds)(_complete, attempt, batch)]
    except (Throttled, Unanswered) as error:
        raise RerankingUnavailableError(
            f"the reranking model gave no scores: {error.condition}",
            condition="RERANKING_MODEL_UNAVAILABLE",
            hint="ask again; if it goes on, raise the account's quota, or leave `reranking` out",
        ) from None
    except Refused as error:
        raise RerankingRejectedError(
            "the reranking model refuses this question or one of the texts", condition=error.condition
        ) from None


def sendable(text: str, most: int) -> str:
    """A text as a service takes it: at most so many characters, and not blank."""
    return BLANK if is_blank(text) else text[:most]


def check_scores(reranker: Reranker, where: str, keys: str) -> None:
    """Score one word; raises `ConfigurationError` that names the configuration's `keys`."""
    try:
        reranker.rerank("ragstream", ["ragstream"])
    except (RerankingUnavailableError, RerankingRejectedError) as error:
        raise ConfigurationError(
            f"reranking: the model {reranker.model!r} gives no scores at {where}",
            condition=error.condition,
            hint=f"check {keys}",
        ) from error


def _complete(attempt: Attempt, texts: Sequence[str]) -> list[float]:
    """One finite score a text; an answer with fewer, or others, counts as none."""
    scores = dict(attempt(texts))
    if scores.keys() != set(range(len(texts))) or not all(map(math.isfinite, scores.values())):
        raise Unanswered("IncompleteScores")
    return [scores[place] for place in range(len(texts))]

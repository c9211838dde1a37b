"""Reranking of fused hits, where a reranker is configured."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from reranking import Reranker
from reranking.errors import RerankingRejectedError, RerankingUnavailableError
from retrieval.ranking.fusion import Ranked

logger = logging.getLogger(__name__)


class Reranked(NamedTuple):
    """The best hits, and why they are in the order of the fusion though there is a reranker."""

    hits: list[Ranked]
    not_reranked: str = ""
    """The condition of the reranker's error, such as `BUDGET_USED_UP`."""


def reranked(reranker: Reranker | None, query: str, fused: Sequence[Ranked], k: int) -> Reranked:
    """The best k hits by the reranker's scores, of as many as it looks at; equal scores stay in the order of the fusion.

    A search does not fail with its reranker: where that gives no scores, or its budget is used up, the order of the fusion
    stays, the result says why, and a warning is logged.
    Raises `ConfigurationError` where the model cannot be used as configured.
    """
    if reranker is None or not fused:
        return Reranked(list(fused[:k]))
    candidates = fused[: max(k, reranker.candidates)]
    try:
        scores = reranker.rerank(query, [ranked.hit.chunk_text for ranked in candidates])
    except (RerankingUnavailableError, RerankingRejectedError) as error:
        logger.warning("a search is answered without its reranker", extra={"context": {"condition": error.condition}})
        return Reranked(list(fused[:k]), error.condition)
    order = sorted(range(len(candidates)), key=lambda at: (-scores[at], at))
    return Reranked([Ranked(candidates[at].hit, scores[at]) for at in order[:k]])

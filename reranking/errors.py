"""The errors of reranking."""

from __future__ import annotations

from schemas.errors import RejectedError, UnavailableError


class RerankingUnavailableError(UnavailableError):
    """The model gave no scores within the time limit."""


class RerankingBudgetError(RerankingUnavailableError):
    """The budget has nothing left for this search; the model was not asked."""


class RerankingRejectedError(RejectedError):
    """The model refuses the question or one of the texts."""

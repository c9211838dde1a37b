"""The errors of text generation."""

from __future__ import annotations

from schemas.errors import RejectedError, UnavailableError


class GenerationUnavailableError(UnavailableError):
    """The model gave no complete answer within the time limit."""


class GenerationBudgetError(GenerationUnavailableError):
    """The budget has nothing left for this answer; the model was not asked."""


class GenerationRejectedError(RejectedError):
    """The model refuses this conversation; usually it is too long."""

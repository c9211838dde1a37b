"""The interface of a reranking model: `Reranker`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Reranker(Protocol):
    """Scores texts against a question, each by itself, with a model that reads both together.

    Every call costs a model call, also a repeated one. Instances pickle as their configuration; a process opens one client, on
    first use. Thread-safe.
    """

    @property
    def model(self) -> str:
        """The model's name, for users."""

    @property
    def candidates(self) -> int:
        """How many of the best hits are worth scoring."""

    def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return a finite score a text, in order; a higher one fits the question better. Scores of two models do not compare.

        Texts that are longer than the model takes are scored by their beginning. Raises `RerankingUnavailableError` where the
        model gives no scores, or throttles, for the configured time, `RerankingRejectedError` where it refuses the request,
        `ConfigurationError` where no retry can help.
        """

    def check(self) -> None:
        """Score one word; raise `ConfigurationError` with a hint when the model cannot be used as configured."""

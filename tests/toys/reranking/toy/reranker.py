"""A toy reranker: it likes the question's words, and one of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from .config import ToyRerankingConfig


class ToyReranker:
    """Counts words."""

    model = "toy-taste"
    candidates = 10

    def __init__(self, config: ToyRerankingConfig) -> None:
        """Keep the configuration."""
        self._config = config

    def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        """Count them."""
        liked = [*query.split(), self._config.toy_taste]
        return [float(sum(text.split().count(word) for word in liked)) for text in texts]

    def check(self) -> None:
        """Refuse to have no taste."""
        if not self._config.toy_taste:
            raise ConfigurationError("reranking: no taste", condition="NO_TASTE")

"""A toy model: a text's vector is the sum of its words' vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from embeddings.errors import EmbeddingRejectedError
from embeddings.protocol import Embedding, EmbeddingCounts, EmbeddingRejected, Vector

if TYPE_CHECKING:
    from .config import ToyEmbeddingConfig


class ToyEmbedder:
    """Pickles as its configuration."""

    max_items = 16
    max_tokens = 8192

    def __init__(self, config: ToyEmbeddingConfig) -> None:
        """Keep the configuration."""
        self._config = config
        self._texts = 0

    @property
    def fingerprint(self) -> str:
        """The model and the length of its vectors."""
        return f"model={self._config.model};dimensions={self.dimensions}"

    @property
    def dimensions(self) -> int:
        """As configured."""
        return self._config.dimensions

    def embed_documents(self, texts: Sequence[str]) -> list[Embedding]:
        """Sum up the words."""
        self._texts += len(texts)
        return [self._vector(text) for text in texts]

    def embed_query(self, text: str) -> Vector:
        """As a document."""
        vector = self._vector(text)
        if isinstance(vector, EmbeddingRejected):
            raise EmbeddingRejectedError(vector.message, condition=vector.condition)
        return vector

    def check(self) -> None:
        """It is always there."""

    def counts(self) -> EmbeddingCounts:
        """The texts alone."""
        return EmbeddingCounts(texts=self._texts)

    def _vector(self, text: str) -> Embedding:
        if not text.strip():
            return EmbeddingRejected("BLANK_TEXT", "the text is blank")
        words = [np.random.default_rng(crc32(word.encode())) for word in text.lower().split()]
        whole = np.sum([word.standard_normal(self.dimensions) for word in words], axis=0)
        unit: Vector = (whole / np.linalg.norm(whole)).astype(np.float32)
        return unit

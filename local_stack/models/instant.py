"""A model that answers at once: unit vectors from a hash of the text, and the text it was given.

For benchmarks and fault tests, where the model's own time would hide ours. Nothing here understands a word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from local_stack.models.protocol import ChatMessage, Vector

NATIVE_DIMENSIONS = 384
"""As many as MiniLM gives, so that padding and wire sizes are those of the real model."""


def instant_vector(text: str) -> Vector:
    """Return the unit vector of a text: a function of its bytes alone, so that any checker can compute it again."""
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    vector = np.random.Generator(np.random.PCG64(seed)).standard_normal(NATIVE_DIMENSIONS)
    single = vector.astype(np.float32)
    unit: Vector = single / np.linalg.norm(single)
    return unit


class InstantEncoder:
    """Encodes by hash; the same text always has the same vector, in every process."""

    def encode(self, texts: Sequence[str]) -> list[Vector]:
        """Return one float32 unit vector a text, in order."""
        return [instant_vector(text) for text in texts]

    def count_tokens(self, text: str) -> int:
        """Estimate tokens at four characters each, as providers advise for English."""
        return max(1, len(text) // 4)


class InstantGenerator:
    """Answers with the last message's own words, a word at a time."""

    def generate(
        self, messages: Sequence[ChatMessage], *, max_tokens: int, temperature: float, stop: Sequence[str]
    ) -> Iterator[str]:
        """Yield the words of the last message, at most `max_tokens` of them; temperature and stop change nothing."""
        del temperature, stop
        for word in messages[-1].text.split()[:max_tokens]:
            yield f"{word} "

    def count_tokens(self, text: str) -> int:
        """Count words: what `generate` calls a token."""
        return len(text.split())

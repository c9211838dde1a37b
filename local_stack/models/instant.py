"""An instant model: unit vectors from a hash of the text, and answers that repeat the last message.

For benchmarks and fault tests, where a real model's time would dominate. Its vectors have no meaning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from embeddings.onnx.embedder import Encoded
from embeddings.protocol import Vector
from local_stack.models.protocol import ChatRequest, Generated

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

    def tokens(self, text: str) -> int:
        """Count four characters of ASCII, and any other character, as a token: about what BERT's tokenizers make of them."""
        ascii_only = len(text.encode("ascii", "ignore"))
        return max(1, ascii_only // 4 + len(text) - ascii_only)

    def token_vectors(self, text: str) -> Vector:
        """Return a vector a word, so that texts with a question's own words score best."""
        words: Vector = np.array([instant_vector(word) for word in text.lower().split() or [""]])
        return words

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Return one float32 unit vector a text, and the tokens that it would cost."""
        return [Encoded(instant_vector(text), self.tokens(text)) for text in texts]


class InstantGenerator:
    """Answers with the last message's own words."""

    def generate(self, request: ChatRequest, emit: Callable[[str], bool]) -> Generated:
        """Emit the words of the last message, at most `max_tokens` of them; a word counts as a token."""
        words = request.messages[-1].text.split()
        said = 0
        for word in words[: request.max_tokens]:
            said += 1
            if not emit(f"{word} "):
                break
        heard = sum(len(message.text.split()) for message in request.messages)
        return Generated(heard, said, "max_tokens" if len(words) > request.max_tokens else "end_turn")


class CannedGenerator:
    """Answers the same to everything, in pieces."""

    def __init__(self, answer: str) -> None:
        self._answer = answer

    def generate(self, request: ChatRequest, emit: Callable[[str], bool]) -> Generated:
        """Emit the answer by its spaces; a piece counts as a token."""
        pieces = [f"{piece} " for piece in self._answer.split(" ")]
        said = sum(1 for piece in pieces if emit(piece))
        return Generated(sum(len(message.text.split()) for message in request.messages), said, "end_turn")

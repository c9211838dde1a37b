"""What the model endpoint needs of a model, so that real and instant ones are served by the same routes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

type Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation; role is `system`, `user` or `assistant`."""

    role: str
    text: str


class TextEncoder(Protocol):
    """Turns texts into unit vectors; called from one thread only."""

    def encode(self, texts: Sequence[str]) -> list[Vector]:
        """Return one float32 unit vector a text, in order."""
        ...

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a text, before any truncation."""
        ...


class TextGenerator(Protocol):
    """Continues a conversation; called from one thread only."""

    def generate(
        self, messages: Sequence[ChatMessage], *, max_tokens: int, temperature: float, stop: Sequence[str]
    ) -> Iterator[str]:
        """Yield the answer in pieces, one token or so each; at most `max_tokens` of them."""
        ...

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a text."""
        ...

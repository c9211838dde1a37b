"""Protocols of the models behind the endpoint, which real and instant models implement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from embeddings.onnx.embedder import Encoded
from embeddings.protocol import Vector


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation; role is `system`, `user` or `assistant`."""

    role: str
    text: str


class TextEncoder(Protocol):
    """Turns texts into unit vectors; called from one thread only."""

    def tokens(self, text: str) -> int:
        """Count a text's tokens, also those beyond what the model takes."""

    def token_vectors(self, text: str) -> Vector:
        """Return the vectors of a text's tokens: tokens × dimensions, not of unit length."""

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Return each text's float32 unit vector and the tokens it was made from, in order."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """The conversation so far, and the settings of its continuation."""

    messages: Sequence[ChatMessage]
    max_tokens: int
    temperature: float = 0.0
    stop: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Generated:
    """The end of an answer: its tokens and stop reason."""

    input_tokens: int
    output_tokens: int
    stop_reason: str
    """`end_turn` or `max_tokens`, as Converse names them."""


class PromptTooLongError(Exception):
    """The messages do not fit into the model's context."""


class TextGenerator(Protocol):
    """Continues a conversation; called from one thread only."""

    def generate(self, request: ChatRequest, emit: Callable[[str], bool]) -> Generated:
        """Hand each piece of the answer to `emit` as it comes, until it ends or `emit` returns False.

        Raises `PromptTooLongError` before anything is emitted.
        """

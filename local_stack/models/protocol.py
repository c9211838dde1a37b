"""Protocols of the models behind the endpoint, which real and instant models implement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from embeddings.onnx.embedder import Encoded
from embeddings.protocol import Vector


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation; role is `system`, `user` or `assistant`."""

    role: str
    text: str
    """With the text of tool results."""
    calls: tuple[str, ...] = ()
    """Ids of the tool calls in it."""
    results: tuple[str, ...] = ()
    """Ids of the calls whose results are in it."""


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool that a model may call."""

    name: str
    description: str
    schema: Mapping[str, Any]
    """JSON Schema of its input."""


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
    tools: Sequence[OfferedTool] = ()


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

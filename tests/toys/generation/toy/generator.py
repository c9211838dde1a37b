"""A toy text model: it says the same to everything."""

from __future__ import annotations

from collections import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from generation.protocol import AnswerStream, GeneratedAnswer, Message, StopReason
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from .config import ToyGenerationConfig


class ToyGenerator:
    """Has an opinion, and cites the first source for it."""

    model = "toy-text"
    takes_tools = False

    def __init__(self, config: ToyGenerationConfig) -> None:
        """Keep the configuration."""
        self._config = config

    def converse(self, messages: Sequence[Message], **_: Any) -> GeneratedAnswer:
        """Say it."""
        return GeneratedAnswer(f"{self._config.toy_opinion} [1].", StopReason.END_TURN, 1, 1)

    def stream(self, messages: Sequence[Message], **_: Any) -> AnswerStream:
        """Say it in one piece."""

        def pieces() -> abc.Generator[str, None, GeneratedAnswer]:
            answer = self.converse(messages)
            yield answer.text
            return answer

        return AnswerStream(pieces())

    def check(self) -> None:
        """Refuse to have none."""
        if not self._config.toy_opinion:
            raise ConfigurationError("generation: no opinion", condition="NO_OPINION")

"""Text models behind one protocol: `open_generator(config)` gives a `Generator`.

Adding a provider is a folder with a configuration and a class, one member of `TextModelConfig` and one arm of `open_generator`.
Reading a configuration imports no client: `open_generator` does.
"""

from __future__ import annotations

from typing import assert_never

from generation.bedrock.config import BedrockGenerationConfig
from generation.protocol import AnswerStream, GeneratedAnswer, Generator, Message, StopReason

type TextModelConfig = BedrockGenerationConfig
"""The `generation` section of a pipeline's configuration, where a text model words the answers."""

__all__ = [
    "AnswerStream",
    "BedrockGenerationConfig",
    "GeneratedAnswer",
    "Generator",
    "Message",
    "StopReason",
    "TextModelConfig",
    "open_generator",
]


def open_generator(config: TextModelConfig) -> Generator:
    """Return the generator of a configuration; it connects on first use."""
    match config:
        case BedrockGenerationConfig():
            from generation.bedrock.generator import BedrockGenerator

            return BedrockGenerator(config)
        case _:
            assert_never(config)

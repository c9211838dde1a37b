"""Text models behind one protocol: `open_generator(config)` gives a `Generator`.

Adding a provider is a folder with a configuration and a class, one member of `TextModelConfig` and one arm of `open_generator`.
Reading a configuration imports no client: `open_generator` does.
"""

from __future__ import annotations

from typing import Annotated, assert_never

from pydantic import Field

from generation.bedrock.config import BedrockGenerationConfig
from generation.protocol import (
    AnswerStream,
    GeneratedAnswer,
    Generator,
    Message,
    StopReason,
    Tool,
    ToolCall,
    ToolResult,
)
from generation.sagemaker.config import SageMakerGenerationConfig

type TextModelConfig = Annotated[BedrockGenerationConfig | SageMakerGenerationConfig, Field(discriminator="type")]
"""The `generation` section of a pipeline's configuration, where a text model words the answers."""

__all__ = [
    "AnswerStream",
    "BedrockGenerationConfig",
    "GeneratedAnswer",
    "Generator",
    "Message",
    "SageMakerGenerationConfig",
    "StopReason",
    "TextModelConfig",
    "Tool",
    "ToolCall",
    "ToolResult",
    "open_generator",
]


def open_generator(config: TextModelConfig) -> Generator:
    """Return the generator of a configuration; it connects on first use."""
    match config:
        case BedrockGenerationConfig():
            from generation.bedrock.generator import BedrockGenerator

            return BedrockGenerator(config)
        case SageMakerGenerationConfig():
            from generation.sagemaker.generator import SageMakerGenerator

            return SageMakerGenerator(config)
        case _:
            assert_never(config)

"""Reranking models behind one protocol: `open_reranker(config)` gives a `Reranker`.

Adding a provider is a folder with a configuration and a class, one member of `RerankingConfig` and one arm of `open_reranker`.
Reading a configuration imports no client: `open_reranker` does.
"""

from __future__ import annotations

from typing import Annotated, assert_never

from pydantic import Field

from reranking.bedrock.config import BedrockRerankingConfig
from reranking.protocol import Reranker
from reranking.sagemaker.config import SageMakerRerankingConfig

type RerankingConfig = Annotated[BedrockRerankingConfig | SageMakerRerankingConfig, Field(discriminator="type")]
"""The `reranking` section of a pipeline's configuration."""

__all__ = ["BedrockRerankingConfig", "Reranker", "RerankingConfig", "SageMakerRerankingConfig", "open_reranker"]


def open_reranker(config: RerankingConfig) -> Reranker:
    """Return the reranker of a configuration; it connects on first use."""
    match config:
        case BedrockRerankingConfig():
            from reranking.bedrock.reranker import BedrockReranker

            return BedrockReranker(config)
        case SageMakerRerankingConfig():
            from reranking.sagemaker.reranker import SageMakerReranker

            return SageMakerReranker(config)
        case _:
            assert_never(config)

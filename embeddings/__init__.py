"""Embedding models behind one protocol: `open_embedder(config)` gives an `Embedder`.

Adding a provider is a folder with a configuration and a class, one line of `EmbeddingConfig` and one arm of `open_embedder`; a
Bedrock model family is one codec. Reading a configuration imports no client: `open_embedder` does.
"""

from __future__ import annotations

from typing import Annotated, assert_never

from pydantic import Field

from embeddings.bedrock.config import BedrockEmbeddingConfig
from embeddings.onnx.config import LocalEmbeddingConfig
from embeddings.protocol import Embedder, Embedding, EmbeddingCounts, EmbeddingRejected, Purpose, Truncation, Vector
from embeddings.sagemaker.config import SageMakerEmbeddingConfig

type EmbeddingConfig = Annotated[
    BedrockEmbeddingConfig | SageMakerEmbeddingConfig | LocalEmbeddingConfig, Field(discriminator="type")
]
"""The `embedding` section of a pipeline's configuration."""

__all__ = [
    "BedrockEmbeddingConfig",
    "Embedder",
    "Embedding",
    "EmbeddingConfig",
    "EmbeddingCounts",
    "EmbeddingRejected",
    "LocalEmbeddingConfig",
    "Purpose",
    "SageMakerEmbeddingConfig",
    "Truncation",
    "Vector",
    "open_embedder",
    "texts_at_once",
]


def open_embedder(config: EmbeddingConfig) -> Embedder:
    """Return the embedder of a configuration; it connects on first use."""
    match config:
        case BedrockEmbeddingConfig():
            from embeddings.bedrock.embedder import BedrockEmbedder

            return BedrockEmbedder(config)
        case SageMakerEmbeddingConfig():
            from embeddings.sagemaker.embedder import SageMakerEmbedder

            return SageMakerEmbedder(config)
        case LocalEmbeddingConfig():
            from embeddings.onnx.embedder import LocalEmbedder

            return LocalEmbedder(config)
        case _:
            assert_never(config)


def texts_at_once(config: EmbeddingConfig, embedder: Embedder) -> int:
    """The number of texts that fill all requests that may be in flight."""
    return embedder.max_items * getattr(config, "requests_in_flight", 1)

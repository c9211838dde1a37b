"""The configuration of a reranking model behind a SageMaker endpoint; it needs no client."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from embeddings.sagemaker.config import SageMakerConnection
from reranking.rules import RemoteScores


class SageMakerRerankingConfig(SageMakerConnection, RemoteScores):
    """A reranking model in a container of Text Embeddings Inference behind a SageMaker endpoint."""

    type: Literal["sagemaker"]
    max_items: int = Field(default=32, ge=1, le=48)
    """Texts of a request: the container's MAX_CLIENT_BATCH_SIZE."""

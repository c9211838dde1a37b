"""The configuration of a reranking model behind a SageMaker endpoint; it needs no client."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from embeddings.budget.config import RerankingBudgetConfig, refuse_unpriced
from embeddings.sagemaker.config import SageMakerConnection


class SageMakerRerankingConfig(SageMakerConnection):
    """A reranking model in a container of Text Embeddings Inference behind a SageMaker endpoint."""

    type: Literal["sagemaker"]
    max_items: int = Field(default=32, ge=1, le=48)
    """Texts of a request: the container's MAX_CLIENT_BATCH_SIZE."""
    candidates: int = Field(default=25, ge=1, le=1000)
    """How many of the best hits are scored, at least as many as results are asked for."""
    timeout_seconds: float = Field(default=3, gt=0)
    """How long to try before a search goes on without it."""
    budget: RerankingBudgetConfig | None = None
    """What all processes of the pipelines that share its ledger may ask of the model."""

    @model_validator(mode="after")
    def _is_priced(self) -> Self:
        refuse_unpriced(self.budget, self.model)
        return self

"""The configuration of a reranking model on Amazon Bedrock; it needs no client."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from embeddings.bedrock.config import BedrockConnection
from embeddings.budget.config import RerankingBudgetConfig, refuse_unpriced


class BedrockRerankingConfig(BedrockConnection):
    """A reranking model on Amazon Bedrock."""

    type: Literal["bedrock"]
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

    @property
    def model_arn(self) -> str:
        """The model's ARN, which Rerank takes in place of an id."""
        if self.model.startswith("arn:"):
            return self.model
        partition = {"cn": "aws-cn", "us-gov": "aws-us-gov"}.get(self.region.rsplit("-", 2)[0], "aws")
        return f"arn:{partition}:bedrock:{self.region}::foundation-model/{self.model}"

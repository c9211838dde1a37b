"""The configuration of a reranking model on Amazon Bedrock; it needs no client."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from embeddings.bedrock.config import BedrockConnection


class BedrockRerankingConfig(BedrockConnection):
    """A reranking model on Amazon Bedrock."""

    type: Literal["bedrock"]
    candidates: int = Field(default=25, ge=1, le=1000)
    """How many of the best hits are scored, at least as many as results are asked for."""
    timeout_seconds: float = Field(default=3, gt=0)
    """How long to try before a search goes on without it."""

    @property
    def model_arn(self) -> str:
        """The model's ARN, which Rerank takes in place of an id."""
        if self.model.startswith("arn:"):
            return self.model
        partition = {"cn": "aws-cn", "us-gov": "aws-us-gov"}.get(self.region.rsplit("-", 2)[0], "aws")
        return f"arn:{partition}:bedrock:{self.region}::foundation-model/{self.model}"

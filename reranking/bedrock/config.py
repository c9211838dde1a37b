"""The configuration of a reranking model on Amazon Bedrock; it needs no client."""

from __future__ import annotations

from typing import Literal

from embeddings.bedrock.config import BedrockConnection
from reranking.rules import RemoteScores


class BedrockRerankingConfig(BedrockConnection, RemoteScores):
    """A reranking model on Amazon Bedrock."""

    type: Literal["bedrock"]

    @property
    def model_arn(self) -> str:
        """The model's ARN, which Rerank takes in place of an id."""
        if self.model.startswith("arn:"):
            return self.model
        partition = {"cn": "aws-cn", "us-gov": "aws-us-gov"}.get(self.region.rsplit("-", 2)[0], "aws")
        return f"arn:{partition}:bedrock:{self.region}::foundation-model/{self.model}"

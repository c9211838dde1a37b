"""The configuration of a model on Amazon Bedrock; it needs no client."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from embeddings.bedrock.codecs import codec_for
from embeddings.budget.config import BudgetConfig, refuse_unpriced
from embeddings.connection import AwsConnection
from embeddings.protocol import Truncation
from schemas.errors import ConfigurationError


class BedrockConnection(AwsConnection):
    """Where a Bedrock runtime answers, and the model that is asked."""

    model: str = Field(min_length=1)
    """Model id, inference profile id, or the ARN of either."""

    @property
    def where(self) -> str:
        """Name the place for a message."""
        return self.endpoint_url or f"Bedrock in {self.region}"


class BedrockEmbeddingConfig(BedrockConnection):
    """An embedding model on Amazon Bedrock."""

    type: Literal["bedrock"]
    dimensions: int
    """Length of every vector; one of the sizes the model offers."""
    truncation: Truncation = Truncation.PARTS
    """What happens to a text longer than the model takes."""
    max_chars: int | None = Field(default=None, gt=0)
    """Characters of a text that are sent at once, when fewer than the model takes."""
    requests_in_flight: int = Field(default=8, ge=1, le=256)
    """Requests at once from one process; throttles lower it for a while."""
    query_timeout_seconds: float = Field(default=30, gt=0)
    """How long a question may wait for its vector. Documents wait as long as it takes."""
    budget: BudgetConfig | None = None
    """What all processes of the pipelines that share its ledger may ask of the model."""

    @model_validator(mode="after")
    def _model_offers_dimensions(self) -> BedrockEmbeddingConfig:
        try:
            offered = codec_for(self.model).dimensions
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        if self.dimensions not in offered:
            raise ValueError(f"dimensions: {self.model} offers {', '.join(map(str, sorted(offered)))}")
        refuse_unpriced(self.budget, self.model)
        return self

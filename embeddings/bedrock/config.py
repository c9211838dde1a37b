"""The configuration of a model on Amazon Bedrock; it needs no client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, SecretStr, model_validator

from embeddings.bedrock.codecs import codec_for
from embeddings.protocol import Truncation
from schemas.errors import ConfigurationError
from schemas.transport import EncryptedPart, weak_url


class BedrockConnection(EncryptedPart):
    """Where a Bedrock runtime answers, and how long to wait for it."""

    model: str = Field(min_length=1)
    """Model id, inference profile id, or the ARN of either."""
    region: str = "us-east-1"
    endpoint_url: str | None = None
    """Another address than AWS's own: an interface endpoint, or a local endpoint of the same wire format."""
    access_key: str | None = None
    """Only where the usual AWS credential chain does not apply."""
    secret_key: SecretStr | None = None
    connect_timeout_seconds: float = Field(default=5, gt=0)
    read_timeout_seconds: float = Field(default=60, gt=0)

    def weaknesses(self) -> Iterator[str]:
        """Tell an http:// endpoint of another machine."""
        return weak_url("endpoint_url", self.endpoint_url)

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

    @model_validator(mode="after")
    def _model_offers_dimensions(self) -> BedrockEmbeddingConfig:
        try:
            offered = codec_for(self.model).dimensions
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        if self.dimensions not in offered:
            raise ValueError(f"dimensions: {self.model} offers {', '.join(map(str, sorted(offered)))}")
        return self

"""The configuration of a model behind a SageMaker endpoint; it needs no client."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from embeddings.budget.config import BudgetConfig, refuse_unpriced
from embeddings.connection import AwsConnection
from embeddings.protocol import Truncation


class SageMakerConnection(AwsConnection):
    """A real-time endpoint, and how long to wait for it."""

    endpoint: str = Field(max_length=63, pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9])*$")
    """The endpoint's name."""
    inference_component: str | None = Field(
        default=None, max_length=63, pattern=r"^[a-zA-Z0-9]([\-a-zA-Z0-9]*[a-zA-Z0-9])?$"
    )
    """The inference component, on an endpoint that has several."""
    model: str = Field(min_length=1)
    """The name of the model behind the endpoint, which SageMaker does not tell: it is kept with what the model makes."""

    @property
    def where(self) -> str:
        """Name the place for a message."""
        return self.endpoint_url or f"the SageMaker endpoint {self.endpoint} in {self.region}"


class SageMakerEmbeddingConfig(SageMakerConnection):
    """An embedding model behind a SageMaker endpoint."""

    type: Literal["sagemaker"]
    container: Literal["tei", "huggingface", "jumpstart"]
    """What answers: Text Embeddings Inference, Hugging Face's inference container (feature-extraction), or a JumpStart model
    that takes `text_inputs`."""
    dimensions: int = Field(gt=0)
    """Length of every vector."""
    pooling: Literal["mean", "cls", "none"] | None = None
    """Hugging Face's container answers a vector for each token: what makes one of them, as the model was trained; `none` where
    the endpoint's own code already does. `check` compares it with what the endpoint answers."""
    document_prefix: str = ""
    """Text before each document, for models that were trained with one, such as `passage: `."""
    query_prefix: str = ""
    """Text before each question, such as `query: `."""
    max_items: int | None = Field(default=None, ge=1)
    """Texts of a request: 32 for TEI (its MAX_CLIENT_BATCH_SIZE), 16 for JumpStart, 1 for Hugging Face's container, whose answer
    of one long text is near the limit of 6 MB."""
    max_tokens: int = Field(default=512, gt=0)
    """Tokens of a text that the model takes."""
    truncation: Truncation = Truncation.PARTS
    """What happens to a text longer than the model takes."""
    max_chars: int = Field(default=100_000, gt=0, le=100_000)
    """Characters of a text that are sent at once; a request has 6 MB at most."""
    requests_in_flight: int = Field(default=8, ge=1, le=256)
    """Requests at once from one process; throttles lower it for a while."""
    query_timeout_seconds: float = Field(default=30, gt=0)
    """How long a question may wait for its vector. Documents wait as long as it takes."""
    budget: BudgetConfig | None = None
    """What all processes of the pipelines that share its ledger may ask of the model."""

    @model_validator(mode="after")
    def _pooling_fits(self) -> Self:
        if self.container == "huggingface" and self.pooling is None:
            raise ValueError("pooling: say mean, cls or none: this container answers a vector for each token")
        if self.container != "huggingface" and self.pooling is not None:
            raise ValueError(f"pooling: {self.container} pools by itself; leave it out")
        refuse_unpriced(self.budget, self.model)
        return self

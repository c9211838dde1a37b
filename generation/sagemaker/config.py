"""The configuration of a text model behind a SageMaker endpoint; it needs no client."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from embeddings.budget.config import AnswerBudgetConfig, refuse_unpriced
from embeddings.sagemaker.config import SageMakerConnection
from generation.rules import AnswerRules


class SageMakerGenerationConfig(SageMakerConnection, AnswerRules):
    """A text model behind a SageMaker endpoint, in a container of LMI (DJL Serving) or TGI."""

    type: Literal["sagemaker"]
    format: Literal["messages", "inputs"] = "messages"
    """`messages`: OpenAI's chat form, for which the container knows the model's chat template. `inputs`: one prompt of text."""
    chat_template: Literal["plain", "chatml", "llama3"] = "plain"
    """How turns are written as one prompt, for `format: inputs`; the model was trained with one of them."""
    max_tokens: int = Field(default=512, gt=0)
    """Tokens of an answer at most."""
    temperature: float = Field(default=0.0, ge=0, le=1)
    """0 gives the likeliest answer, the same for the same prompt."""
    timeout_seconds: float = Field(default=60, gt=0)
    """How long to try before giving up on an answer that has not begun."""
    budget: AnswerBudgetConfig | None = None
    """What all processes of the pipelines that share its ledger may ask of the model."""

    @model_validator(mode="after")
    def _is_priced(self) -> Self:
        refuse_unpriced(self.budget, self.model)
        return self

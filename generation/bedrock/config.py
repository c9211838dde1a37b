"""The configuration of a text model on Amazon Bedrock; it needs no client."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from embeddings.bedrock.config import BedrockConnection
from embeddings.budget.config import AnswerBudgetConfig, refuse_unpriced
from generation.rules import AnswerRules
from schemas.model import StrictModel


class GuardrailConfig(StrictModel):
    """A guardrail of Amazon Bedrock, which looks at the conversation and at the answer."""

    id: str = Field(min_length=1, max_length=2048)
    """The guardrail's id or ARN."""
    version: str = Field(default="DRAFT", pattern=r"^([1-9][0-9]{0,7}|DRAFT)$")
    """A published version's number, or `DRAFT`."""


class BedrockGenerationConfig(BedrockConnection, AnswerRules):
    """A text model on Amazon Bedrock."""

    type: Literal["bedrock"]
    max_tokens: int = Field(default=512, gt=0)
    """Tokens of an answer at most."""
    temperature: float = Field(default=0.0, ge=0, le=1)
    """0 gives the likeliest answer, the same for the same prompt."""
    timeout_seconds: float = Field(default=60, gt=0)
    """How long to try before giving up on an answer that has not begun."""
    budget: AnswerBudgetConfig | None = None
    """What all processes of the pipelines that share its ledger may ask of the model."""
    guardrail: GuardrailConfig | None = None
    """What looks at conversations and answers. Where it intervenes, the answer is a refusal that names the rule."""

    @model_validator(mode="after")
    def _is_priced(self) -> Self:
        refuse_unpriced(self.budget, self.model)
        return self

"""The configuration of a text model on Amazon Bedrock; it needs no client."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from embeddings.bedrock.config import BedrockConnection
from generation.rules import RemoteAnswers
from schemas.model import StrictModel


class GuardrailConfig(StrictModel):
    """A guardrail of Amazon Bedrock, which looks at the conversation and at the answer."""

    id: str = Field(min_length=1, max_length=2048)
    """The guardrail's id or ARN."""
    version: str = Field(default="DRAFT", pattern=r"^([1-9][0-9]{0,7}|DRAFT)$")
    """A published version's number, or `DRAFT`."""


class BedrockGenerationConfig(BedrockConnection, RemoteAnswers):
    """A text model on Amazon Bedrock."""

    type: Literal["bedrock"]
    guardrail: GuardrailConfig | None = None
    """What looks at conversations and answers. Where it intervenes, the answer is a refusal that names the rule."""

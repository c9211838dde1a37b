"""What text models' configurations say of their answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from embeddings.budget.config import BudgetedAnswers
from schemas.model import StrictModel

type Unsupported = Literal["drop", "mark", "keep"]


class AnswerRules(StrictModel):
    """The rules for what a text model says."""

    unsupported: Unsupported = "drop"
    """What happens to a sentence with a number or a name that the rows it cites do not hold: it is left out, marked
    `[unsupported]`, or kept. A sentence without a citation is always left out."""


class RemoteAnswers(BudgetedAnswers, AnswerRules):
    """The rules, and how a text model elsewhere is asked."""

    max_tokens: int = Field(default=512, gt=0)
    """Tokens of an answer at most."""
    temperature: float = Field(default=0.0, ge=0, le=1)
    """0 gives the likeliest answer, the same for the same prompt."""
    timeout_seconds: float = Field(default=60, gt=0)
    """How long to try before giving up on an answer that has not begun."""

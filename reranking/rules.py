"""What every reranker's configuration says of how it is asked."""

from __future__ import annotations

from pydantic import Field

from embeddings.budget.config import BudgetedAnswers, RerankingBudgetConfig


class RemoteScores(BudgetedAnswers):
    """How a reranker elsewhere is asked."""

    candidates: int = Field(default=25, ge=1, le=1000)
    """How many of the best hits are scored, at least as many as results are asked for."""
    timeout_seconds: float = Field(default=3, gt=0)
    """How long to try before a search goes on without it."""
    budget: RerankingBudgetConfig | None = None
    """What all processes of the pipelines that share its ledger may ask of the model."""

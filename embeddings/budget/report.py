"""What budgets say of themselves, for `status` and for metrics: from their ledgers, without a request to a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embeddings.budget.budget import AWAY, shared_budget
from schemas.errors import PipelineError


@dataclass(frozen=True, slots=True)
class BudgetReport:
    """What a request would wait for now, and what was spent."""

    waiting_for: str | None = None
    """The limit: `requests_per_minute`, `tokens_per_minute`, `dollars_per_day`, `ledger`; None where a request would be sent."""
    seconds: float = 0.0
    """Until it would be sent."""
    dollars_today: float = 0.0
    error: str | None = None
    """Of a ledger that does not answer."""


def sections_of(pipeline: object) -> dict[str, Any]:
    """A pipeline's sections whose models may have a budget, by name."""
    return {name: getattr(pipeline, name) for name in ("embedding", "generation", "reranking")}


def reports(sections: Mapping[str, Any]) -> dict[str, BudgetReport]:
    """The reports of the sections that have a budget, by name."""
    return {
        name: _report(name, section)
        for name, section in sections.items()
        if getattr(section, "budget", None) is not None
    }


def _report(name: str, section: Any) -> BudgetReport:
    try:
        budget = shared_budget(section.budget, section.model, name)
        state = budget.state()
        limit = state.grant.limit if state.grant.seconds else None
        return BudgetReport(limit, round(state.grant.seconds, 1), round(state.dollars_today, 6))
    except PipelineError as error:
        return BudgetReport(waiting_for=AWAY, error=error.message)

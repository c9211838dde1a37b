"""What one request takes from a budget: counted before it is sent, corrected by what it really cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from embeddings.budget.budget import Budget, shared_budget
from embeddings.budget.config import BudgetedAnswers
from embeddings.outcomes import Throttled, Unanswered
from embeddings.prices import Usage
from embeddings.usage import TALLY, Asked, Receipt
from schemas.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Spending:
    """The share of one request in a budget, if there is one. Every attempt at it takes one of its own."""

    asked: Asked
    usage: Usage
    """What it costs at most, estimated."""
    requests: int = 1
    """As the model's price counts them."""
    budget: Budget | None = None
    seconds: float = 0.0
    """How long an attempt waits for its turn."""

    @classmethod
    def of(cls, config: BudgetedAnswers, section: str, usage: Usage, requests: int = 1) -> Spending:
        """The share of a request to the model of a section of the configuration."""
        asked = Asked(config.model, section)
        if config.budget is None:
            return cls(asked, usage, requests)
        return cls(asked, usage, requests, shared_budget(config.budget, config.model, section), config.budget.wait)

    @contextmanager
    def attempt(self) -> Iterator[Receipt]:
        """Wait for the turn of one attempt, which runs in the block and says on the receipt what it cost.

        What a provider did not answer comes back. Raises `BudgetUsedUpError` before the block.
        """
        if self.budget is not None:
            self.budget.take_within(self.seconds, self.usage, self.requests)
        requests = 0
        with TALLY.request(self.asked, self.usage) as receipt:
            try:
                yield receipt
            except (Throttled, Unanswered, ConfigurationError):
                if not receipt.sent:
                    receipt.used, requests = Usage(), -self.requests
                raise
            finally:
                used = Usage(receipt.used.input - self.usage.input, receipt.used.output - self.usage.output)
                if self.budget is not None:
                    self.budget.settle(used, requests)

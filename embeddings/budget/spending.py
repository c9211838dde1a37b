"""What one request takes from a budget: counted before it is sent, corrected by what it really cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from embeddings.budget.budget import Budget
from embeddings.outcomes import Throttled, Unanswered
from embeddings.prices import Usage
from schemas.errors import ConfigurationError


@dataclass
class Receipt:
    """What a request cost, as it becomes known; the estimate until then."""

    used: Usage
    sent: bool = False
    """Whether a part of the answer came: then a failure is paid for."""


@dataclass(frozen=True, slots=True)
class Spending:
    """The share of one request in a budget. Every attempt at it takes one of its own."""

    budget: Budget | None
    seconds: float = 0.0
    """How long an attempt waits for its turn."""
    usage: Usage = field(default_factory=Usage)
    """What it costs at most, estimated."""
    requests: int = 1
    """As the model's price counts them."""

    @contextmanager
    def attempt(self) -> Iterator[Receipt]:
        """Wait for the turn of one attempt, which runs in the block and says on the receipt what it cost.

        What a provider did not answer comes back. Raises `BudgetUsedUpError` before the block.
        """
        receipt = Receipt(self.usage)
        if self.budget is None:
            yield receipt
            return
        self.budget.take_within(self.seconds, self.usage, self.requests)
        requests = 0
        try:
            yield receipt
        except (Throttled, Unanswered, ConfigurationError):
            if not receipt.sent:
                receipt.used, requests = Usage(), -self.requests
            raise
        finally:
            used = receipt.used
            self.budget.settle(Usage(used.input - self.usage.input, used.output - self.usage.output), requests)


NOTHING = Spending(None)
"""Of a model without a budget."""

"""A budget as a process uses it: it waits for its turn before a request, and counts afterwards what the request cost."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

from embeddings.budget.config import BudgetConfig
from embeddings.budget.ledger import Ledger, open_ledger
from embeddings.budget.reservations import (
    DAY_SECONDS,
    HORIZON_SECONDS,
    LONG_SECONDS,
    Cost,
    Grant,
    Limits,
    reserve,
    settle,
    waiting,
)
from embeddings.prices import Price, Usage
from schemas.errors import ConfigurationError, UnavailableError

LONGEST_LOOK = 5.0
"""Seconds after which a waiting process asks again: a limit may have been raised."""
QUICK_LOOK = 0.2
"""The same, for a request that waits for a bounded time: what others reserved and did not use comes back."""
AWAY = "ledger"
"""What a request waits for where the ledger does not answer."""


class BudgetUsedUpError(UnavailableError):
    """A request would wait for longer than it may; nothing was sent."""


@dataclass(frozen=True, slots=True)
class BudgetState:
    """What a ledger says at one moment."""

    grant: Grant
    """The answer that a request would get."""
    dollars_today: float
    """Dollars granted today."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What this process waits for, as others may read it."""

    limit: str = ""
    since: float = 0.0


class Budget:
    """The budget of one model in this process. Thread-safe. Without a reachable ledger texts wait and questions do not."""

    def __init__(
        self,
        limits: Limits,
        ledger: Ledger,
        price: Price | None = None,
        *,
        section: str = "embedding",
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`section` of the configuration, for messages."""
        self.limits = limits
        self._ledger = ledger
        self._price = price or Price()
        self._section = section
        self._clock = clock
        self._sleep = sleep
        self.wait = Wait()
        self.gives_up = False
        """Whether a text that would wait for long is an error instead: for a process that has other work."""

    def take(self, tokens: int, *, waits: bool) -> None:
        """Count a request of about so many tokens, and return when it may be sent; a question does not wait.

        Raises:
            BudgetUsedUpError: the wait is long, and this process gives up.
        """
        cost = self._cost(Usage(tokens))
        while True:
            grant = self._reserve(cost, HORIZON_SECONDS if waits else None)
            if self.gives_up and not grant.granted and (grant.seconds > LONG_SECONDS or grant.limit == AWAY):
                raise self._used_up(grant.limit)
            if grant.seconds:
                self.wait = Wait(grant.limit, self.wait.since or self._clock())
                self._sleep(grant.seconds if grant.granted else min(grant.seconds, LONGEST_LOOK))
            if grant.granted:
                self.wait = Wait()
                return

    def take_within(self, seconds: float, usage: Usage, requests: int = 1) -> None:
        """Count a request that waits for its turn so long at most; `requests` as the model's price counts them.

        Raises:
            BudgetUsedUpError: its turn has not come, or the ledger does not answer; nothing was counted.
        """
        cost, until = self._cost(usage, requests), self._clock() + seconds
        while True:
            left = max(0.0, until - self._clock())
            grant = self._reserve(cost, min(left, HORIZON_SECONDS))
            if grant.granted:
                if grant.seconds:
                    self._sleep(grant.seconds)
                return
            if left <= 0 or grant.limit == "dollars_per_day":
                raise self._used_up(grant.limit)
            self._sleep(min(max(grant.seconds, QUICK_LOOK / 4), QUICK_LOOK, left))

    def settle(self, more: int | Usage, requests: int = 0) -> None:
        """Count what a request used more, or less, than was taken for it; `requests` as the price counts them."""
        usage = Usage(more) if isinstance(more, int) else more
        cost = self._cost(usage, requests)
        if cost == Cost(0) or not (self.limits.tokens_per_minute or self.limits.dollars_per_day):
            return
        try:
            self._ledger.change(lambda state: (settle(state, self.limits, self._clock(), cost), None))
        except UnavailableError:
            return  # the estimate stays

    def state(self, tokens: int = 1) -> BudgetState:
        """What a request of so many tokens would wait for now, and today's dollars; raises as `Ledger.read`."""
        state, now = self._ledger.read(), self._clock()
        grant = waiting(state, self.limits, now, self._cost(Usage(tokens)))
        return BudgetState(grant, state.dollars if state.day == int(now // DAY_SECONDS) else 0.0)

    def _cost(self, usage: Usage, requests: int = 1) -> Cost:
        return Cost(usage.tokens, self._price.of(usage, requests))

    def _reserve(self, cost: Cost, patience: float | None) -> Grant:
        try:
            return self._ledger.change(lambda state: reserve(state, self.limits, self._clock(), cost, patience))
        except UnavailableError:
            waits = patience is not None
            return Grant(granted=not waits, seconds=1.0 if waits else 0.0, limit=AWAY)

    def _used_up(self, limit: str) -> BudgetUsedUpError:
        key = f"{self._section}.budget"
        if limit == AWAY:
            return BudgetUsedUpError(
                f"the ledger of {key} does not answer, so nothing may be asked of the model",
                condition="BUDGET_AWAY",
                hint=f"check {key}.ledger; it goes on once that answers",
            )
        again = "at midnight UTC" if limit == "dollars_per_day" else "in a moment"
        return BudgetUsedUpError(
            f"{key} is used up: {limit}",
            condition="BUDGET_USED_UP",
            hint=f"there is some again {again}; or raise {key}.{limit}",
        )


def budget_of(config: BudgetConfig | None, model: str) -> Budget | None:
    """The budget of an embedding model that may have none; raises as `open_budget`."""
    return None if config is None else open_budget(config, model)


@functools.cache
def shared_budget(config: BudgetConfig, model: str, section: str) -> Budget:
    """The budget of a model, one a process; raises as `open_budget`."""
    return open_budget(config, model, section)


def open_budget(config: BudgetConfig, model: str, section: str = "embedding") -> Budget:
    """The budget of a model, by its section of the configuration.

    Raises:
        ConfigurationError: dollars are limited, and the model's price is not known.
    """
    if fault := config.fault(model):
        raise ConfigurationError(f"{section}.{fault}", condition="PRICE_UNKNOWN")
    limits = Limits(config.requests_per_minute, config.tokens_per_minute, config.dollars_per_day)
    return Budget(limits, open_ledger(config.ledger, section), config.price(model), section=section)

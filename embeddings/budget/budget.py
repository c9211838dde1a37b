"""A budget as a process uses it: it waits for its turn before a request, and counts afterwards what the request cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from embeddings.budget.config import BudgetConfig
from embeddings.budget.ledger import Ledger, open_ledger
from embeddings.budget.reservations import LONG_SECONDS, Grant, Limits, reserve, settle, waiting
from embeddings.prices import price_of
from schemas.errors import ConfigurationError, UnavailableError

LONGEST_LOOK = 5.0
"""Seconds after which a waiting process asks again: a limit may have been raised."""
AWAY = "ledger"
"""What a request waits for where the ledger does not answer."""


class BudgetUsedUpError(UnavailableError):
    """A text would wait for long; nothing was sent."""


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
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.limits = limits
        self._ledger = ledger
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
        while True:
            grant = self._asked(tokens, waits=waits)
            if self.gives_up and not grant.granted and (grant.seconds > LONG_SECONDS or grant.limit == AWAY):
                raise BudgetUsedUpError(
                    f"the budget of the embedding model is used up: {grant.limit}",
                    hint="texts go on once there is some again, or raise embedding.budget",
                )
            if grant.seconds:
                self.wait = Wait(grant.limit, self.wait.since or self._clock())
                self._sleep(grant.seconds if grant.granted else min(grant.seconds, LONGEST_LOOK))
            if grant.granted:
                self.wait = Wait()
                return

    def settle(self, tokens: int) -> None:
        """Count tokens that a request had more, or fewer, than `take` was told."""
        if not tokens or not (self.limits.tokens_per_minute or self.limits.dollars_per_day):
            return
        try:
            self._ledger.change(lambda state: (settle(state, self.limits, self._clock(), tokens), None))
        except UnavailableError:
            return  # the estimate stays

    def state(self, tokens: int = 1) -> Grant:
        """What a request of so many tokens would wait for now; raises as `Ledger.read`."""
        return waiting(self._ledger.read(), self.limits, self._clock(), tokens)

    def spent_today(self) -> float:
        """Dollars granted today; raises as `Ledger.read`."""
        state = self._ledger.read()
        return state.dollars if state.day == int(self._clock() // 86_400) else 0.0

    def _asked(self, tokens: int, *, waits: bool) -> Grant:
        try:
            return self._ledger.change(lambda state: reserve(state, self.limits, self._clock(), tokens, waits=waits))
        except UnavailableError:
            return Grant(granted=not waits, seconds=1.0 if waits else 0.0, limit=AWAY)


def budget_of(config: BudgetConfig | None, model: str) -> Budget | None:
    """The budget of a model that may have none; raises as `open_budget`."""
    return None if config is None else open_budget(config, model)


def open_budget(config: BudgetConfig, model: str) -> Budget:
    """The budget of a model.

    Raises:
        ConfigurationError: dollars are limited, and the model's price is not known.
    """
    known = price_of(model)
    price = config.dollars_per_1000_tokens or known or 0.0
    if config.dollars_per_day is not None and not price:
        raise ConfigurationError(
            f"embedding.budget: the price of {model} is not known",
            condition="PRICE_UNKNOWN",
            hint="set embedding.budget.dollars_per_1000_tokens, or leave dollars_per_day out",
        )
    limits = Limits(config.requests_per_minute, config.tokens_per_minute, config.dollars_per_day, price / 1000)
    return Budget(limits, open_ledger(config.ledger))

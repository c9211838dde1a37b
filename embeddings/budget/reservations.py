"""The decision on a request: when it may be sent, given what was granted before. Pure.

Each rate is kept by one number, the time at which all that was granted would have been due (the generic cell rate algorithm). A
request that is granted moves it on by its own size, so requests queue up in the order in which they ask, and what is granted in a
minute exceeds the limit by `BURST_SECONDS` of it at most, and by one request.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

BURST_SECONDS = 1.0
"""How much that was not used may be made up for."""
HORIZON_SECONDS = 2.0
"""How far ahead a request may reserve its time: what a killed process has reserved is lost."""
LONG_SECONDS = HORIZON_SECONDS + 1.0
"""A longer wait is no turn in a queue: it is one for a day's dollars, or for many tokens."""
DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be asked of a model; None for no limit."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    dollars_per_day: float | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a request takes from a budget, beside being one request."""

    tokens: int
    dollars: float = 0.0


@dataclass(frozen=True, slots=True)
class State:
    """What was granted so far; times in seconds since the epoch."""

    requests_due: float = 0.0
    """When all granted requests are due."""
    tokens_due: float = 0.0
    day: int = 0
    """Days since the epoch, in UTC."""
    dollars: float = 0.0
    """Granted on that day."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The answer to a request."""

    granted: bool
    seconds: float
    """Until it may be sent; if it is not granted, until it is worth asking again."""
    limit: str = ""
    """The limit that it waits for: `requests_per_minute`, `tokens_per_minute`, `dollars_per_day`."""


def reserve(
    state: State, limits: Limits, now: float, cost: Cost, patience: float | None = HORIZON_SECONDS
) -> tuple[State, Grant]:
    """Grant one request, or say when to ask again.

    It reserves its time up to `patience` seconds ahead. One that does not wait (None; a question) is granted at once, and
    counted, so that others wait longer.
    """
    state, waits = today(state, now), patience is not None
    if waits and limits.dollars_per_day is not None and state.dollars + cost.dollars > limits.dollars_per_day:
        return state, Grant(granted=False, seconds=(state.day + 1) * DAY_SECONDS - now, limit="dollars_per_day")
    requests = _due(state.requests_due, now, limits.requests_per_minute)
    due_tokens = _due(state.tokens_due, now, limits.tokens_per_minute)
    at, limit = max((requests, "requests_per_minute"), (due_tokens, "tokens_per_minute"))
    wait = max(0.0, at - now)
    if patience is not None and wait > patience:
        return state, Grant(granted=False, seconds=wait - patience, limit=limit)
    state = replace(
        state,
        requests_due=_moved(requests, limits.requests_per_minute, 1),
        tokens_due=_moved(due_tokens, limits.tokens_per_minute, cost.tokens),
        dollars=state.dollars + cost.dollars,
    )
    return state, Grant(granted=True, seconds=wait if waits else 0.0, limit=limit if wait > 0 else "")


def settle(state: State, limits: Limits, now: float, more: Cost) -> State:
    """Count what a request cost more, or less, than it was granted for."""
    state = today(state, now)
    moved = _moved(state.tokens_due, limits.tokens_per_minute, more.tokens)
    return replace(state, tokens_due=moved, dollars=max(0.0, state.dollars + more.dollars))


def today(state: State, now: float) -> State:
    """The state with the dollars of this day alone; a clock that is behind another's counts for the later day."""
    day = int(now // DAY_SECONDS)
    return replace(state, day=day, dollars=0.0) if day > state.day else state


def waiting(state: State, limits: Limits, now: float, cost: Cost) -> Grant:
    """What a request would be answered now; nothing is reserved."""
    return reserve(state, limits, now, cost)[1]


def _due(due: float, now: float, per_minute: float | None) -> float:
    """When the next request is due by one rate."""
    if per_minute is None:
        return 0.0
    return max(due, now - BURST_SECONDS) if due else now


def _moved(due: float, per_minute: float | None, amount: float) -> float:
    return due + amount * 60 / per_minute if per_minute else due

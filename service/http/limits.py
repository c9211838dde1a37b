"""What one process takes on: requests of a caller by time, and work in progress by caller and in all. Of the event loop alone."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from service.callers.protocol import Identity
from service.config import LimitsConfig
from service.http.errors import RequestError

_MOST_CALLERS = 20_000
"""Callers whose requests are counted; of more, those who were quiet for longest begin anew."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Rate:
    """A token bucket a caller."""

    def __init__(self, limits: LimitsConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = limits.requests_per_minute / 60
        self._burst = limits.burst
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, identity: Identity) -> None:
        """Count a request; raise RequestError with the time to wait where it is one too many."""
        name, now = name_of(identity), self._clock()
        bucket = self._buckets.setdefault(name, _Bucket(self._burst, now))
        self._buckets.move_to_end(name)
        if len(self._buckets) > _MOST_CALLERS:
            self._buckets.popitem(last=False)
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._per_second)
        bucket.at = now
        if bucket.tokens < 1:
            wait = (1 - bucket.tokens) / self._per_second
            raise RequestError(
                429, "too many requests in this time", condition="RATE_LIMITED", hint="wait as long as Retry-After says",
                retry_after=wait,
            )  # fmt: skip
        bucket.tokens -= 1


class Places:
    """Places for what is in progress: so many in all, and so many a caller."""

    def __init__(self, most: int, most_per_caller: int, what: str) -> None:
        """`what` names them, in errors."""
        self._most = most
        self._most_per_caller = most_per_caller
        self._what = what
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """How many are taken."""
        return self._taken.total()

    def take(self, identity: Identity) -> Callable[[], None]:
        """Take a place and return what gives it back; raise RequestError where none is free."""
        name = name_of(identity)
        if self._taken[name] >= self._most_per_caller:
            raise RequestError(
                429, f"too many {self._what} of this caller at once", condition="TOO_MANY_AT_ONCE",
                hint="wait until one of them ends", retry_after=1,
            )  # fmt: skip
        if self._taken.total() >= self._most:
            raise RequestError(
                503, f"too many {self._what} at once", condition="SERVICE_BUSY", hint="send the request again in a while",
                retry_after=1,
            )  # fmt: skip
        self._taken[name] += 1
        is_taken = True

        def give_back() -> None:
            nonlocal is_taken
            if is_taken:
                is_taken = False
                self._taken[name] -= 1
                self._taken += Counter()  # forgets callers with none

        return give_back


def name_of(identity: Identity) -> str:
    """Whose requests are counted together: a user's."""
    return identity.caller.user or ""

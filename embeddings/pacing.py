"""The pace of requests to a model that throttles: additive increase, multiplicative decrease (AIMD). Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Pace:
    """The number of requests that may be in flight, and the time of the next one.

    Answers raise the limit by one a round trip, as TCP does. A slow-down halves it, at most once for the requests that were
    sent before it was last halved, and delays the next request by a backoff that doubles.
    """

    ceiling: int
    """The configured limit of requests in flight."""
    first_wait: float
    """Seconds of delay after the first slow-down."""
    longest_wait: float
    """The longest delay in seconds, unless the provider names a longer one: how late an outage's end may be noticed."""
    limit: float
    not_before: float = -math.inf
    """The clock reading before which no request is sent."""
    streak: int = 0
    """Slow-downs since the last answer that halved the limit."""
    _halved_at: float = -math.inf

    @classmethod
    def starting_at(cls, ceiling: int, *, first_wait: float, longest_wait: float) -> Pace:
        """Start at the ceiling: most accounts allow it, and the first throttle corrects it."""
        return cls(ceiling, first_wait, longest_wait, float(ceiling))

    def answered(self) -> None:
        """Record an answer, whatever it says."""
        self.streak = 0
        self.limit = min(float(self.ceiling), self.limit + 1 / self.limit)

    def slowed(self, *, sent_at: float, now: float, retry_after: float | None, jitter: float) -> None:
        """Record a throttle or a missing answer.

        `jitter` in [0, 1) spreads the workers of a job. A delay that the provider names (`retry_after`, seconds) replaces
        the backoff.
        """
        if sent_at >= self._halved_at:
            self.limit = max(1.0, self.limit / 2)
            self.streak += 1
            self._halved_at = now
        if retry_after is not None:
            wait = max(retry_after, self.first_wait) + self.first_wait * jitter
        else:
            backoff = min(self.longest_wait, self.first_wait * 2 ** min(self.streak - 1, 32))
            wait = backoff * (0.5 + jitter / 2)
        self.not_before = max(self.not_before, now + wait)

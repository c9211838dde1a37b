"""How fast to ask a model that throttles: additive increase, multiplicative decrease; pure."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Pace:
    """How many requests may be in flight, and when the next may leave.

    Every answer raises the limit by one a round trip, as TCP does; every slow-down halves it, at most once for the
    requests already sent when it was last halved, and holds the next request back for a time that doubles.
    """

    ceiling: int
    """Most requests in flight, from the configuration."""
    first_wait: float
    """Seconds held back after the first slow-down."""
    longest_wait: float
    """Seconds held back at most, unless the provider names more: how late an outage's end may be noticed."""
    limit: float
    not_before: float = -math.inf
    """Clock reading before which no request leaves."""
    streak: int = 0
    """Slow-downs since the last answer, each after the last took effect."""
    _halved_at: float = -math.inf

    @classmethod
    def starting_at(cls, ceiling: int, *, first_wait: float, longest_wait: float) -> Pace:
        """Begin at the ceiling: most accounts allow it, and the first throttle corrects it."""
        return cls(ceiling, first_wait, longest_wait, float(ceiling))

    def answered(self) -> None:
        """Take note of an answer, whatever it says: the provider has room."""
        self.streak = 0
        self.limit = min(float(self.ceiling), self.limit + 1 / self.limit)

    def slowed(self, *, sent_at: float, now: float, retry_after: float | None, jitter: float) -> None:
        """Take note of a throttle or a missing answer.

        `jitter` in [0, 1) spreads the workers of a job. A wait the provider names is kept, instead of one of ours.
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

"""Percentiles of the time from commit to write, by a histogram of bounded size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_GROWTH = math.log(1.05)
"""Buckets grow by 5 %, so a percentile is at most 2.5 % off."""
_MINUTES = 15
"""Most recent minutes with writes that the percentiles cover."""


@dataclass
class Freshness:
    """A histogram with exponential buckets for each of the last minutes with writes."""

    minutes: dict[int, dict[int, int]] = field(default_factory=dict)

    def add(self, milliseconds: Iterable[float], minute: int) -> None:
        """Count durations that were measured in a minute (since the epoch)."""
        buckets = self.minutes.setdefault(minute, {})
        for duration in milliseconds:
            bucket = round(math.log(max(duration, 1.0)) / _GROWTH)
            buckets[bucket] = buckets.get(bucket, 0) + 1
        for expired in sorted(self.minutes)[:-_MINUTES]:
            del self.minutes[expired]

    def seconds(self, quantile: float) -> float | None:
        """The quantile in seconds; None when nothing was written yet."""
        total: dict[int, int] = {}
        for buckets in self.minutes.values():
            for bucket, count in buckets.items():
                total[bucket] = total.get(bucket, 0) + count
        remaining = math.ceil(sum(total.values()) * quantile)
        for bucket in sorted(total):
            remaining -= total[bucket]
            if remaining <= 0:
                return round(math.exp(bucket * _GROWTH) / 1000, 3)
        return None

    def to_json(self) -> dict[str, dict[str, int]]:
        """The form in the status file."""
        return {str(m): {str(b): n for b, n in buckets.items()} for m, buckets in self.minutes.items() if buckets}

    @classmethod
    def from_json(cls, stored: Mapping[str, Mapping[str, Any]]) -> Freshness:
        """Read what `to_json` returned."""
        return cls({int(m): {int(b): int(n) for b, n in buckets.items()} for m, buckets in stored.items()})

"""A feed that is kept in line with what is to be followed, and the pieces of work that come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sources.positions import at

if TYPE_CHECKING:
    from indexing.work_unit import WorkUnit
    from sources.feeds import Feed, Fetched, Partition, Position


@dataclass(eq=False, slots=True)
class Followed:
    """One partition, from when it is followed until it is left: what was fetched before does not count after.

    Two of the same partition are different objects, which is how a fetch of the former is told from one of the latter.
    """

    reached: Position
    """Up to where the shared feed's records were handed to the lanes."""


@dataclass(eq=False, slots=True)
class Work:
    """What one fetch brought, on its way to the stores."""

    unit: WorkUnit
    records: int
    reached: dict[Partition, Position]
    """Positions after it."""
    left: set[tuple[str, Partition]] = field(default_factory=set)
    """By store: partitions that it left since. What was fetched of them does not count for it, however soon it returns."""
    waiting: int = 0
    """Attached stores that have not written it."""
    written: bool = False
    """Whether some attached store has."""


class AlignedFeed:
    """A feed, and which `Followed` each of its partitions stands for. One thread uses it."""

    def __init__(self, feed: Feed) -> None:
        """Follow nothing yet."""
        self.feed = feed
        self._followed: dict[Partition, Followed] = {}

    def align(self, wanted: Mapping[Partition, tuple[Followed, Position]]) -> None:
        """Leave what is not wanted, and follow what is new from its position on."""
        if left := [name for name, one in self._followed.items() if name not in wanted or wanted[name][0] is not one]:
            self.feed.leave(left)
        if new := {name: place for name, (one, place) in wanted.items() if self._followed.get(name) is not one}:
            self.feed.follow(new)
        self._followed = {name: one for name, (one, _) in wanted.items()}

    def still_followed(self, fetched: Fetched, now: Mapping[Partition, Followed]) -> dict[Partition, Position]:
        """Positions that a fetch reached, of partitions that were not left since."""
        return {name: place for name, place in fetched.reached.items() if self.follows(name, now)}

    def follows(self, name: Partition, now: Mapping[Partition, Followed]) -> bool:
        """Whether what is followed under a name now is what this feed follows."""
        one = self._followed.get(name)
        return one is not None and now.get(name) is one


def is_closed(position: Any) -> bool:
    """Whether a position is the end of a Kinesis shard that was split or merged."""
    return isinstance(position, dict) and bool(position.get("closed"))


def has_reached(position: Position, goal: Position) -> bool:
    """Whether all that lies before one position lies before another."""
    return at(position) >= at(goal) and (is_closed(position) or not is_closed(goal))

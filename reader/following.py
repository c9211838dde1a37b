"""A feed aligned with the partitions to read, and the units that it fetches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sources.positions import as_number

if TYPE_CHECKING:
    from indexing.work_unit import WorkUnit
    from sources.feeds import Feed, Fetched, Partition, Position


@dataclass(eq=False, slots=True)
class Followed:
    """One partition from when it is followed until it is left.

    Two of the same partition are different objects, so that a fetch for the first does not count for the second.
    """

    reached: Position
    """The position up to which the workers have the shared feed's records."""


@dataclass(eq=False, slots=True)
class FetchedUnit:
    """The work unit of one fetch, on its way to the stores."""

    unit: WorkUnit
    records: int
    reached: dict[Partition, Position]
    """Positions after it."""
    left: set[tuple[str, Partition]] = field(default_factory=set)
    """Store and partition, where the store left it since: these records do not count for it, even if it returns."""
    waiting: int = 0
    """How many attached stores have not written it."""
    written: bool = False
    """Whether some attached store has."""


class AlignedFeed:
    """A feed, and the `Followed` of each of its partitions. One thread uses it."""

    def __init__(self, feed: Feed) -> None:
        """Follow nothing yet."""
        self.feed = feed
        self._followed: dict[Partition, Followed] = {}

    def align(self, partitions: Mapping[Partition, tuple[Followed, Position]]) -> None:
        """Leave partitions that are not among these, and follow new ones from their positions."""
        if left := [
            name for name, one in self._followed.items() if name not in partitions or partitions[name][0] is not one
        ]:
            self.feed.leave(left)
        if new := {name: place for name, (one, place) in partitions.items() if self._followed.get(name) is not one}:
            self.feed.follow(new)
        self._followed = {name: one for name, (one, _) in partitions.items()}

    def still_followed(self, fetched: Fetched, now: Mapping[Partition, Followed]) -> dict[Partition, Position]:
        """The positions of a fetch, of partitions that were not left since."""
        return {name: place for name, place in fetched.reached.items() if self.follows(name, now)}

    def follows(self, name: Partition, now: Mapping[Partition, Followed]) -> bool:
        """Whether this feed still follows a partition for the same `Followed`."""
        followed = self._followed.get(name)
        return followed is not None and now.get(name) is followed


def is_closed(position: Any) -> bool:
    """Whether a position is the end of a Kinesis shard that was split or merged."""
    return isinstance(position, dict) and bool(position.get("closed"))


def has_reached(position: Position, goal: Position) -> bool:
    """Whether a position is at or after a goal."""
    return as_number(position) >= as_number(goal) and (is_closed(position) or not is_closed(goal))

"""Offsets of a Kinesis stream, and the marks of its shards. Pure.

An offset names the stream (its ARN and when it was created, since a stream made again under the same name is another)
and holds a mark for each shard. A batch is what lies between two offsets: for each shard the records after the first
mark's sequence number up to and including the second's. A shard's log never changes, so the same two marks always name
the same records, and the marks' counts say how many that must be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

TRIM_HORIZON = "TRIM_HORIZON"
_AT_TIMESTAMP = "AT_TIMESTAMP:"
_AFTER = "AFTER_SEQUENCE_NUMBER:"


class Shard(NamedTuple):
    """A shard as the stream lists it, and the shards that it was split or merged from."""

    shard_id: str
    parents: tuple[str, ...] = ()


class Identity(NamedTuple):
    """The stream that marks belong to."""

    arn: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A position in one shard."""

    origin: str
    """Where reading begins while no record was read: the trim horizon, a time, or after a sequence number."""
    sequence: str = ""
    """Sequence number of the last record read; empty before the first."""
    count: int = 0
    """Records read since the beginning."""
    seen_ms: int = 0
    """All unread records arrived after this time, and are kept for the retention from then."""
    closed: bool = False
    """The shard was split or merged and all of it was read."""

    @property
    def origin_ms(self) -> int | None:
        """The time reading begins at, in milliseconds, or None for the trim horizon."""
        return int(self.origin.removeprefix(_AT_TIMESTAMP)) if self.origin.startswith(_AT_TIMESTAMP) else None

    @property
    def after(self) -> str:
        """Sequence number after which reading goes on, by the last record read or by the origin; empty when there is none."""
        return self.sequence or (self.origin.removeprefix(_AFTER) if self.origin.startswith(_AFTER) else "")

    def as_origin(self) -> Mark:
        """The same place, with a count that begins there.

        The first batch of a query ends at marks that name the origin, so it can be run again without a checkpoint.
        """
        origin = f"{_AFTER}{self.after}" if self.after else self.origin
        return Mark(origin, seen_ms=self.seen_ms, closed=self.closed)


@dataclass(frozen=True, slots=True)
class Offset:
    """A position in the whole stream."""

    stream: Identity
    shards: Mapping[str, Mark]
    opened: int = 0
    """In a checkpoint from before readers: the number of the open batch that begins here; 0 elsewhere."""

    def to_json(self) -> dict[str, Any]:
        """Write it as Spark keeps it: equal offsets give equal text."""
        shards = {shard_id: asdict(mark) for shard_id, mark in sorted(self.shards.items())}
        written = {"arn": self.stream.arn, "created_ms": self.stream.created_ms, "shards": shards}
        return written | ({"opened": self.opened} if self.opened else {})

    @staticmethod
    def from_json(written: Mapping[str, Any]) -> Offset:
        """Read what `to_json` wrote."""
        shards = {shard_id: Mark(**mark) for shard_id, mark in written["shards"].items()}
        return Offset(Identity(written["arn"], written["created_ms"]), shards, written.get("opened", 0))


def at_timestamp(milliseconds: int) -> str:
    """Name a time as an origin."""
    return f"{_AT_TIMESTAMP}{milliseconds}"


def first_offset(stream: Identity, listed: Mapping[str, Shard], origin: str, now_ms: int) -> Offset:
    """Begin with the shards that have no parent left; the others follow once their parents are read."""
    roots = [shard for shard in listed.values() if not any(parent in listed for parent in shard.parents)]
    return Offset(stream, {shard.shard_id: Mark(origin, seen_ms=now_ms) for shard in roots})


def with_children(offset: Offset, listed: Mapping[str, Shard]) -> Offset:
    """Open the shards whose parents are all read to their end, and forget closed ones the stream no longer lists.

    A child's records are newer than its parents', so none is read before they are; it is read from its first record.
    """
    shards = {i: mark for i, mark in offset.shards.items() if not mark.closed or i in listed}
    for shard in listed.values():
        if shard.shard_id in offset.shards:
            continue
        known = [offset.shards[parent] for parent in shard.parents if parent in offset.shards]
        waits = any(parent in listed and parent not in offset.shards for parent in shard.parents)
        if waits or not known or not all(parent.closed for parent in known):
            continue
        # A parent without a record since a starting time may have been closed before it: the child keeps that time.
        unread = not any(parent.count or parent.after for parent in known)
        origin = known[0].origin if unread else TRIM_HORIZON
        shards[shard.shard_id] = Mark(origin, seen_ms=min(parent.seen_ms for parent in known))
    return replace(offset, shards=shards)

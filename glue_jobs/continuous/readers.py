"""What a driver knows of the readers of one source: what each reads, where it answers, how far it has come. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from glue_jobs.continuous.assignment import dealt
from glue_jobs.continuous.backfills import Gap
from glue_jobs.continuous.start_positions import numbers
from glue_jobs.continuous.store_positions import StorePositions, latest, reached
from reader.messages import Instruction
from sources.feeds import Reading

if TYPE_CHECKING:
    from sources.feeds import Partition, Position

type Harvested = Mapping[str, Any]
"""One row of `reader.task.HARVEST_COLUMNS`: what a reader answered, but for its results."""


@dataclass
class Readers:
    """The readers of one source within one start of its query (`epoch`).

    What they answer may come twice and in any order: a position only grows.
    """

    most: int
    """Most readers that run side by side."""
    epoch: str
    reading: Reading
    """Where each store has come to, all of it written."""
    behind: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """By reader, the stores that are further back than its others."""
    addresses: dict[int, str] = field(default_factory=dict)
    """By reader, where it answered last; kept over starts of the query."""
    dealing: dict[Partition, int] = field(default_factory=dict)
    """By partition, who reads it; kept over starts of the query."""
    away: dict[str, str] = field(default_factory=dict)
    """What has not answered for two harvests (`source NAME`, `sink NAME`, `embedding`), and a sentence about it."""
    left: frozenset[str] = frozenset()
    """Where readers answered until the last harvest: another one has taken the place of each."""
    partitions_as_of_us: int | None = None
    """When the source was asked which partitions there are, in microseconds since the epoch; None: a new one tells of itself."""
    _missed: frozenset[str] = frozenset()
    _as_of_us: dict[str, dict[Partition, int]] = field(default_factory=dict)
    _followed_up: dict[str, set[Partition]] = field(default_factory=dict)
    """By store, shards that had ended when the source was asked: their children are known."""

    def __post_init__(self) -> None:
        """Deal what there is to read."""
        self._take_up(self.reading)

    def read_on(self, refreshed: Reading) -> None:
        """Read what a source was found to hold; where it is read already, it is read on from where it has come to."""
        stores = reached(self.reading.stores, (), read_on=refreshed.stores)
        self.reading = Reading(refreshed.identity, stores)
        self._take_up(refreshed)

    def instructions(self, batch: int, borrowing: Collection[str] = ()) -> list[Instruction]:
        """Instruct every reader that has something to read; stores in `borrowing` lack vectors that others hold."""
        parts = sorted(set(self.dealing.values()))
        return [
            Instruction(
                epoch=self.epoch,
                batch=batch,
                part=part,
                positions={
                    store: {name: at for name, at in positions.items() if self.dealing.get(name) == part}
                    for store, positions in self.reading.stores.items()
                },
                behind=self.behind.get(part, ()),
                borrowing=tuple(sorted(borrowing)),
                address=self.addresses.get(part, ""),
            )
            for part in parts
        ]

    def harvested(self, harvests: Sequence[Harvested]) -> bool:
        """Take what readers answered; whether the source is to be asked anew, since a shard of it has ended."""
        positions = [harvest["positions"] for harvest in harvests]
        self.reading = self.reading._replace(stores=reached({}, positions, read_on=self.reading.stores))
        self.behind = {**self.behind, **{harvest["part"]: tuple(harvest["behind"]) for harvest in harvests}}
        before, self.addresses = (
            self.addresses,
            self.addresses | {harvest["part"]: harvest["address"] for harvest in harvests},
        )
        self.left = frozenset(before.values()) - frozenset(self.addresses.values())
        away = {service: sentence for harvest in harvests for service, sentence in harvest["away"].items()}
        self.away = {service: sentence for service, sentence in away.items() if service in self._missed}
        self._missed = frozenset(away)
        for harvest in harvests:
            for store, as_of_us in harvest["as_of_us"].items():
                self._as_of_us.setdefault(store, {}).update(as_of_us)
        return any(harvest["closed"] for harvest in harvests)

    def lost_to(self, store: str, gaps: Mapping[Partition, Sequence[Position]]) -> Gap:
        """What a store lacks for which a reader reported gaps: of a shard whose end is not known, all that others have read."""
        if all(end is not None for _, end in gaps.values()):
            begin, until = (numbers({name: gap[end] for name, gap in gaps.items()}) for end in (0, 1))
            return Gap(begin, until)
        others = (positions for name, positions in self.reading.stores.items() if name != store)
        return Gap(None, numbers(latest(others)))

    def as_of_us(self, store: str) -> dict[Partition, int]:
        """Of every partition that a store reads: up to when all its commits are written; 0 before that is known.

        A shard that has ended says nothing: until its children are known, which may hold commits already, it counts as unknown.
        """
        by_partition, limit = self._as_of_us.get(store, {}), self.partitions_as_of_us
        return {
            name: 0
            if _is_closed(at)
            else min(by_partition.get(name, 0), by_partition.get(name, 0) if limit is None else limit)
            for name, at in self.reading.stores.get(store, {}).items()
            if name not in self._followed_up.get(store, ())
        }

    def kept(self) -> StorePositions:
        """What is to be written down of it."""
        behind = {store for part in set(self.dealing.values()) for store in self.behind.get(part, ())}
        return StorePositions(
            readers=True,
            identity=self.reading.identity,
            stores=self.reading.stores,
            behind=tuple(sorted(behind & self.reading.stores.keys())),
        )

    def _take_up(self, refreshed: Reading) -> None:
        """Deal the partitions of which some store has not all: a shard that has ended is kept, but read no more."""
        self._followed_up = {
            store: {name for name, at in positions.items() if _is_closed(at)}
            for store, positions in refreshed.stores.items()
        }
        unread = {
            name for positions in self.reading.stores.values() for name, at in positions.items() if not _is_closed(at)
        }
        self.dealing = dealt(unread, self.most, self.dealing)


def _is_closed(position: Position) -> bool:
    return isinstance(position, Mapping) and bool(position["closed"])

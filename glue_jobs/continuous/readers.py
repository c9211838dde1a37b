"""The readers of one source as their driver sees them: partitions, addresses, positions. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from glue_jobs.continuous.assignment import assigned
from glue_jobs.continuous.backfills import Gap
from glue_jobs.continuous.store_positions import StorePositions, advanced, latest
from reader.messages import Instruction
from sources.feeds import Partition, Position, SourcePositions
from sources.positions import as_numbers

type HarvestRow = Mapping[str, Any]
"""A harvest without its results, as in `reader.task.HARVEST_COLUMNS`."""


@dataclass
class Readers:
    """The readers of one source within one start of its query (`epoch`).

    Harvests may come twice and in any order: a position only grows.
    """

    most: int
    """The largest number of readers."""
    epoch: str
    positions: SourcePositions
    """All before these is written."""
    behind: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """By reader, the stores that lag behind its others."""
    addresses: dict[int, str] = field(default_factory=dict)
    """By reader, its last address; kept over starts of the query."""
    assignment: dict[Partition, int] = field(default_factory=dict)
    """By partition, its reader; kept over starts of the query."""
    away: dict[str, str] = field(default_factory=dict)
    """What has not answered for two harvests (`source NAME`, `sink NAME`, `embedding`), and a sentence about it."""
    replaced: frozenset[str] = frozenset()
    """Addresses of readers that others replaced with the last harvest."""
    partitions_as_of_us: int | None = None
    """When the source was asked for its partitions, in µs since the epoch; None: a harvest shows that there are new ones."""
    _missed: frozenset[str] = frozenset()
    _as_of_us: dict[str, dict[Partition, int]] = field(default_factory=dict)
    _followed_up: dict[str, set[Partition]] = field(default_factory=dict)
    """By store, shards that had ended when the source was asked last: their children are known."""

    def __post_init__(self) -> None:
        """Assign the partitions."""
        self._assign(self.positions)

    def refresh(self, refreshed: SourcePositions) -> None:
        """Take the partitions that a source has now; those that are read already keep their positions."""
        self.positions = refreshed._replace(stores=advanced(refreshed.stores, [self.positions.stores]))
        self._assign(refreshed)

    def instructions(self, batch: int, use_peers: Collection[str] = ()) -> list[Instruction]:
        """Instruct every reader with partitions; stores in `use_peers` lack vectors that others have."""
        parts = sorted(set(self.assignment.values()))
        return [
            Instruction(
                epoch=self.epoch,
                batch=batch,
                part=part,
                positions={
                    store: {name: at for name, at in positions.items() if self.assignment.get(name) == part}
                    for store, positions in self.positions.stores.items()
                },
                behind=self.behind.get(part, ()),
                use_peers=tuple(sorted(use_peers)),
                address=self.addresses.get(part, ""),
            )
            for part in parts
        ]

    def take(self, harvests: Sequence[HarvestRow]) -> bool:
        """Take harvests in; True when a shard has ended, so that the source must be asked for its children."""
        stores = advanced(self.positions.stores, [harvest["positions"] for harvest in harvests])
        self.positions = self.positions._replace(stores=stores)
        self.behind = {**self.behind, **{harvest["part"]: tuple(harvest["behind"]) for harvest in harvests}}
        before = frozenset(self.addresses.values())
        self.addresses = self.addresses | {harvest["part"]: harvest["address"] for harvest in harvests}
        self.replaced = before - frozenset(self.addresses.values())
        away = {service: sentence for harvest in harvests for service, sentence in harvest["away"].items()}
        self.away = {service: sentence for service, sentence in away.items() if service in self._missed}
        self._missed = frozenset(away)
        for harvest in harvests:
            for store, as_of_us in harvest["as_of_us"].items():
                self._as_of_us.setdefault(store, {}).update(as_of_us)
        return any(harvest["closed"] for harvest in harvests)

    def gap(self, store: str, gaps: Mapping[Partition, Sequence[Position]]) -> Gap:
        """The gap of a store, from a harvest: everything that others have read, where a shard's end is not known."""
        if all(end is not None for _, end in gaps.values()):
            begin, until = (as_numbers({name: gap[end] for name, gap in gaps.items()}) for end in (0, 1))
            return Gap(begin, until)
        others = (positions for name, positions in self.positions.stores.items() if name != store)
        return Gap(None, as_numbers(latest(others)))

    def as_of_us(self, store: str) -> dict[Partition, int]:
        """By partition of a store: up to when all commits are written; 0 before that is known.

        A shard that has ended counts as unknown until its children are known, since they may have commits already.
        """
        by_partition, limit = self._as_of_us.get(store, {}), self.partitions_as_of_us
        return {
            name: 0
            if _is_closed(at)
            else min(by_partition.get(name, 0), by_partition.get(name, 0) if limit is None else limit)
            for name, at in self.positions.stores.get(store, {}).items()
            if name not in self._followed_up.get(store, ())
        }

    def store_positions(self) -> StorePositions:
        """The content of `positions.json`."""
        (identity, stores), parts = self.positions, set(self.assignment.values())
        behind = {store for part in parts for store in self.behind.get(part, ()) if store in stores}
        return StorePositions(readers=True, identity=identity, stores=stores, behind=tuple(sorted(behind)))

    def _assign(self, refreshed: SourcePositions) -> None:
        """Assign the partitions that some store still reads: a shard that has ended is kept, but read no more."""
        self._followed_up = {
            store: {name for name, at in positions.items() if _is_closed(at)}
            for store, positions in refreshed.stores.items()
        }
        stores = self.positions.stores.values()
        unread = {name for positions in stores for name, at in positions.items() if not _is_closed(at)}
        self.assignment = assigned(unread, self.most, self.assignment)


def _is_closed(position: Position) -> bool:
    return isinstance(position, Mapping) and bool(position["closed"])

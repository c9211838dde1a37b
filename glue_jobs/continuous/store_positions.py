"""The positions of each store in a source, as one small JSON file beside the checkpoint of the query that reads it.

`<checkpoint>/index_<source>/positions.json` is replaced as a whole by the driver that holds the query; a kill leaves the old
file. While readers run (`readers` true) reading goes on there, for every store. Of a query in micro-batches, whose offsets
Spark keeps, it has only the stores that are behind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import reduce
from typing import Any

from glue_jobs.storage import files
from schemas.errors import StoppedError
from sources.feeds import Partition, Position, Positions
from sources.positions import earlier

FILE_NAME = "positions.json"
_FORMAT = 1

type ByStore = Mapping[str, Positions]
"""The positions of each store, by its name."""


@dataclass(frozen=True)
class StorePositions:
    """The content of the file."""

    readers: bool
    """Whether readers go on from here; otherwise micro-batches go on from Spark's offsets."""
    identity: Any = None
    """The topics or the stream that the positions belong to (`sources.feeds.SourcePositions.identity`)."""
    stores: ByStore = field(default_factory=dict)
    """All before these positions is written to that store."""
    behind: tuple[str, ...] = ()
    """Stores that are read for by a feed of their own, since the others are ahead."""

    @property
    def lagging(self) -> frozenset[str]:
        """Stores that lack records that the others have."""
        return frozenset(self.behind if self.readers else self.stores)


def read(checkpoint: str) -> StorePositions | None:
    """Read the file beside a checkpoint; None where there is none.

    Raises StoppedError for a file of a newer version of this product.
    """
    text = files.read(_location(checkpoint))
    if text is None:
        return None
    written = json.loads(text)
    if written.pop("format") != _FORMAT:
        raise StoppedError(
            f"{_location(checkpoint)} was written by a newer version.",
            condition="POSITIONS_FORMAT_UNKNOWN",
            hint="Run the version that wrote it, or a newer one.",
        )
    return StorePositions(**written | {"behind": tuple(written["behind"])})


def write(checkpoint: str, positions: StorePositions) -> None:
    """Replace the file as a whole."""
    files.write(_location(checkpoint), json.dumps({"format": _FORMAT} | asdict(positions), separators=(",", ":")))


def earliest(stores: Iterable[Positions]) -> dict[Partition, Position]:
    """The positions at which one query must begin to write all of these stores.

    A partition that some store lacks is left out: it is a child of a shard that this store has not read to its end, and
    comes back once that shard has been read.
    """
    every = list(stores)
    common = set.intersection(*map(set, every)) if every else set()
    return {partition: reduce(earlier, (positions[partition] for positions in every)) for partition in sorted(common)}


def latest(stores: Iterable[Positions]) -> dict[Partition, Position]:
    """The furthest position of any of these stores in each partition."""
    furthest: dict[Partition, Position] = {}
    for positions in stores:
        for partition, position in positions.items():
            furthest[partition] = later(furthest.get(partition, position), position)
    return furthest


def later(one: Position, other: Position) -> Position:
    """The position from which less is read."""
    return other if earlier(one, other) == one else one


def advanced(starts: ByStore, harvested: Iterable[ByStore]) -> dict[str, dict[Partition, Position]]:
    """The furthest positions in harvests, of the stores and partitions in `starts` alone and never before those."""
    stores = {store: dict(positions) for store, positions in starts.items()}
    for harvest in harvested:
        for store, positions in harvest.items():
            known = stores.get(store, {})
            for partition in known.keys() & positions.keys():
                known[partition] = later(known[partition], positions[partition])
    return stores


def _location(checkpoint: str) -> str:
    return f"{checkpoint.rstrip('/')}/{FILE_NAME}"

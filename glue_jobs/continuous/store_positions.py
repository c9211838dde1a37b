"""How far each store has come with a source, as one small JSON file beside the checkpoint of the query that reads it.

`<checkpoint>/index_<source>/positions.json` is written by the driver that holds the query, and says all of it or, after a
kill, what it said before. While readers run (`readers` true) it is where reading goes on, for every store. Of a query in
micro-batches, whose offsets Spark keeps, it holds only the stores that are behind it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any

from glue_jobs.storage import files
from schemas.errors import StoppedError
from sources.positions import earlier

if TYPE_CHECKING:
    from sources.feeds import Partition, Position, Positions

FILE_NAME = "positions.json"
_FORMAT = 1

type ByStore = Mapping[str, Positions]
"""The positions of each store, by its name."""


@dataclass(frozen=True)
class StorePositions:
    """What the file says."""

    readers: bool
    """Whether readers go on from here; otherwise micro-batches do, from the offsets that Spark keeps."""
    identity: Any = None
    """Which topics or which stream the positions belong to (`sources.feeds.Reading.identity`)."""
    stores: ByStore = field(default_factory=dict)
    """Everything before these positions is written to that store."""
    behind: tuple[str, ...] = ()
    """Stores that read with a feed of their own, since they are further back than the others."""

    @property
    def lagging(self) -> frozenset[str]:
        """Stores that have not got what the others have."""
        return frozenset(self.behind if self.readers else self.stores)


def read(checkpoint: str) -> StorePositions | None:
    """Read what the driver of a query wrote beside its checkpoint; None where it wrote nothing.

    Raises StoppedError for a file that another version of this product wrote.
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
    """Where one query must begin that writes all of these stores.

    A partition that some store has not got is left out: it is a child of a shard that this store has not read to its end,
    and is found again when that shard has been.
    """
    every = list(stores)
    common = set.intersection(*map(set, every)) if every else set()
    return {partition: reduce(earlier, (positions[partition] for positions in every)) for partition in sorted(common)}


def latest(stores: Iterable[Positions]) -> dict[Partition, Position]:
    """How far any of these stores has come: nobody has read more than that."""
    furthest: dict[Partition, Position] = {}
    for positions in stores:
        for partition, position in positions.items():
            furthest[partition] = later(furthest.get(partition, position), position)
    return furthest


def later(one: Position, other: Position) -> Position:
    """The position from which less is read."""
    return other if earlier(one, other) == one else one


def reached(before: ByStore, harvested: Iterable[ByStore], *, read_on: ByStore) -> dict[str, dict[Partition, Position]]:
    """Where each store stands after harvests: of the partitions in `read_on` alone, and never further back than before.

    A partition that is new stands where `read_on` begins it.
    """
    stores = {store: dict(positions) for store, positions in read_on.items()}
    for more in (before, *harvested):
        for store, positions in more.items():
            known = stores.get(store, {})
            for partition in known.keys() & positions.keys():
                known[partition] = later(known[partition], positions[partition])
    return stores


def noted(checkpoint: str, change: Callable[[StorePositions], StorePositions]) -> StorePositions:
    """Change the file of a query in micro-batches; only the thread that holds the query may."""
    changed = change(read(checkpoint) or StorePositions(readers=False))
    write(checkpoint, changed)
    return changed


def _location(checkpoint: str) -> str:
    return f"{checkpoint.rstrip('/')}/{FILE_NAME}"

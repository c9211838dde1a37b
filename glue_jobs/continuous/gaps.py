"""Stores whose next records the stream has lost, while others have read them: they go on where those are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import chain
from typing import TYPE_CHECKING

from glue_jobs.continuous.backfills import Gap
from sources.positions import at, earlier

if TYPE_CHECKING:
    from sources.feeds import Partition, Position
    from sources.retained import Holds

type Stores = Mapping[str, Mapping[Partition, Position]]
"""Where each store goes on."""


def without_gaps(
    stores: Stores, holds: Callable[[], Holds]
) -> tuple[dict[str, dict[Partition, Position]], dict[str, Gap]]:
    """Move stores past records that the stream no longer holds; what they lack of them comes back by store.

    `holds` is asked only if the stores' positions differ. A position that is lost to every store stays as it is: reading
    from it raises SourceGoneError.
    """
    reached, gaps = {store: dict(positions) for store, positions in stores.items()}, dict[str, Gap]()
    if len({tuple(sorted((name, at(where)) for name, where in each.items())) for each in reached.values()}) < 2:
        return reached, gaps
    is_held = holds()
    held = {store: {n: w for n, w in positions.items() if is_held(n, w)} for store, positions in stores.items()}
    first_held: dict[Partition, Position] = {}
    for name, where in chain.from_iterable(each.items() for each in held.values()):
        first_held[name] = earlier(first_held.get(name, where), where)
    unharmed = [dict(stores[store]) for store in stores if held[store].keys() == stores[store].keys()]
    for store, positions in stores.items():
        lost = positions.keys() - held[store].keys()
        if lost <= first_held.keys():
            reached[store] |= {name: first_held[name] for name in lost}
        elif unharmed:
            reached[store] = min(unharmed, key=_sum)
        if reached[store] != positions:
            gaps[store] = _gap(positions, reached[store], lost)
    return reached, gaps


def _sum(positions: Mapping[Partition, Position]) -> int:
    return sum(at(position) for position in positions.values())


def _gap(
    position_before: Mapping[Partition, Position], goes_on: Mapping[Partition, Position], lost: Collection[Partition]
) -> Gap:
    """What lies between two positions; everything, where shards have come and gone meanwhile."""
    if position_before.keys() != goes_on.keys():
        return Gap(None, {name: at(where) for name, where in goes_on.items()})
    return Gap({name: at(position_before[name]) for name in lost}, {name: at(goes_on[name]) for name in lost})

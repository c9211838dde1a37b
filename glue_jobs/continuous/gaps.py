"""Gaps: a store whose next records the stream has lost, while others have read them, goes on where those are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import chain

from glue_jobs.continuous.backfills import Gap
from sources.feeds import Partition, Position
from sources.positions import as_numbers, earlier
from sources.retained import Holds

type Stores = Mapping[str, Mapping[Partition, Position]]
"""Where each store goes on."""


def without_gaps(
    stores: Stores, holds: Callable[[], Holds]
) -> tuple[dict[str, dict[Partition, Position]], dict[str, Gap]]:
    """Move stores past records that the stream no longer has; return the new positions, and the gaps by store.

    `holds` is called only if the stores' positions differ. A position that is lost to every store stays as it is: reading
    from it raises SourceGoneError.
    """
    reached, gaps = {store: dict(positions) for store, positions in stores.items()}, dict[str, Gap]()
    if len({tuple(sorted(as_numbers(positions).items())) for positions in stores.values()}) < 2:
        return reached, gaps
    is_kept = holds()
    kept = {store: {n: p for n, p in positions.items() if is_kept(n, p)} for store, positions in stores.items()}
    first_kept: dict[Partition, Position] = {}
    for name, position in chain.from_iterable(positions.items() for positions in kept.values()):
        first_kept[name] = earlier(first_kept.get(name, position), position)
    without_loss = [dict(stores[store]) for store in stores if kept[store].keys() == stores[store].keys()]
    for store, positions in stores.items():
        lost = positions.keys() - kept[store].keys()
        if lost <= first_kept.keys():
            reached[store] |= {name: first_kept[name] for name in lost}
        elif without_loss:
            reached[store] = min(without_loss, key=lambda positions: sum(as_numbers(positions).values()))
        if reached[store] != positions:
            gaps[store] = _gap(positions, reached[store], lost)
    return reached, gaps


def _gap(before: Mapping[Partition, Position], after: Mapping[Partition, Position], lost: Collection[Partition]) -> Gap:
    """The gap between two positions; everything before the second, where shards have come and gone meanwhile."""
    begin, until = as_numbers(before), as_numbers(after)
    if begin.keys() != until.keys():
        return Gap(None, until)
    return Gap({name: begin[name] for name in lost}, {name: until[name] for name in lost})

"""Which reader reads which partition: each keeps what it has, and what is new goes to the one that has least."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sources.feeds import Partition


def dealt(partitions: Collection[Partition], readers: int, before: Mapping[Partition, int]) -> dict[Partition, int]:
    """Deal partitions to at most so many readers, numbered from 0, given how they were dealt before.

    A partition stays with its reader while there may be that many, also when others have ended: a reader that lost it would
    write it beside the new one for a while. The result depends on the arguments alone.
    """
    assigned = {
        partition: before[partition] for partition in sorted(partitions) if before.get(partition, readers) < readers
    }
    load = Counter(assigned.values())
    for partition in sorted(set(partitions) - assigned.keys()):
        reader = min(range(readers), key=lambda number: (load[number], number))
        assigned[partition] = reader
        load[reader] += 1
    return assigned

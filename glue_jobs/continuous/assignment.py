"""The assignment of partitions to readers: each keeps its own, and new ones go to the reader with the fewest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sources.feeds import Partition


def assigned(partitions: Collection[Partition], readers: int, before: Mapping[Partition, int]) -> dict[Partition, int]:
    """Assign partitions to at most so many readers, numbered from 0, starting from the assignment before.

    A partition stays with its reader while that number is allowed, also when others have ended: the reader that loses it
    writes it beside the new one for a while. The result depends on the arguments alone.
    """
    assignment = {
        partition: before[partition] for partition in sorted(partitions) if before.get(partition, readers) < readers
    }
    load = Counter(assignment.values())
    for partition in sorted(set(partitions) - assignment.keys()):
        reader = min(range(readers), key=lambda number: (load[number], number))
        assignment[partition] = reader
        load[reader] += 1
    return assignment

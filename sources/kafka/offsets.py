"""Spark's offsets of a query over Kafka, brought in line with the topics that are read from now on.

Spark takes a topic that is read no more for one whose records were lost, and one that is new and whose first records have
expired, as Kafka lets them, too: either stops the query for good. What was chosen is no loss, so it is written down as done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from sources.checkpoint_files import CheckpointFiles

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

type Offsets = Mapping[str, Mapping[str, int]]
"""By topic and partition, as Spark writes them."""

_FORM = "v1"
_LAST = 2
"""Files from which Spark starts: the batch it began last and, when that was not committed, the one before."""


def aligned(offsets: Offsets, topics: Collection[str], starts: Callable[[Collection[str]], Offsets]) -> Offsets:
    """Leave out topics that are read no more; one that is new begins with what it holds now."""
    added = sorted(set(topics) - offsets.keys())
    kept = {name: reached for name, reached in offsets.items() if name in topics}
    return kept | (dict(starts(added)) if added else {})


def align(
    spark: SparkSession, checkpoint: str, topics: Collection[str], starts: Callable[[Collection[str]], Offsets]
) -> None:
    """Align the offsets that a query starts from, before it starts; nothing to do for one that has not begun.

    Doing it again changes nothing, and a kill leaves each file as it was or as it should be. A file of another form
    than is known here is left alone.
    """
    files = CheckpointFiles(spark, f"{checkpoint.rstrip('/')}/offsets")
    for name in sorted(filter(str.isdigit, files.names()), key=int)[-_LAST:]:
        form, _, rest = (files.read(name) or "").partition("\n")
        metadata, _, told = rest.partition("\n")
        if form != _FORM or not told.startswith("{") or "\n" in told.strip():
            continue
        before = json.loads(told)
        after = aligned(before, topics, starts)
        if after != before:
            files.write(name, "\n".join((form, metadata, json.dumps(after, separators=(",", ":")))))

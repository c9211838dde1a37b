"""Spark's offsets of a query over Kafka, aligned with the topics that are read from now on.

To Spark a topic that is read no more has lost its records, and so has a new one whose first records have expired: either
stops the query for good. Neither is a loss, so Spark's offsets are rewritten.
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
"""Files from which Spark starts: that of the last batch and, if that was not committed, the one before."""


def aligned(offsets: Offsets, topics: Collection[str], starts: Callable[[Collection[str]], Offsets]) -> Offsets:
    """Offsets without the topics that are read no more; a new one begins with the first record that it has."""
    added = sorted(set(topics) - offsets.keys())
    unchanged = {name: reached for name, reached in offsets.items() if name in topics}
    return unchanged | (dict(starts(added)) if added else {})


def align(
    spark: SparkSession, checkpoint: str, topics: Collection[str], starts: Callable[[Collection[str]], Offsets]
) -> None:
    """Align the offsets that a query starts from, before it starts; nothing to do for one that has not begun.

    Doing it again changes nothing, and a kill leaves each file with the old text or the new one. A file in an unknown format
    stays as it is.
    """
    files = CheckpointFiles(spark, f"{checkpoint.rstrip('/')}/offsets")
    for name in sorted(filter(str.isdigit, files.names()), key=int)[-_LAST:]:
        form, _, rest = (files.read(name) or "").partition("\n")
        metadata, _, offsets = rest.partition("\n")
        if form != _FORM or not offsets.startswith("{") or "\n" in offsets.strip():
            continue
        before = json.loads(offsets)
        after = aligned(before, topics, starts)
        if after != before:
            files.write(name, "\n".join((form, metadata, json.dumps(after, separators=(",", ":")))))

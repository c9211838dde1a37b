"""Spark's settings for a merge, by its size: a small one runs one task at a time, and delays other work on the cores less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SMALL = 20_000
"""Changes that one task folds in a second or two."""

_ALWAYS = {
    "spark.databricks.delta.merge.materializeSource": "none",  # the batch is kept
    # A table is filtered by a Bloom filter of a batch's keys before it is shuffled to meet them, however large the two are
    # estimated. Unlike a condition with the keys, it leaves none of them in the table's log (I14).
    "spark.sql.optimizer.runtime.bloomFilter.applicationSideScanSizeThreshold": "0",
    "spark.sql.optimizer.runtime.bloomFilter.creationSideThreshold": "8000p",
}
_ONE_TASK = {"spark.sql.shuffle.partitions": "1", "spark.sql.files.minPartitionNum": "1"}
_INTERPRETED = {"spark.sql.codegen.factoryMode": "NO_CODEGEN"}
"""For a session that compiles no stages: compiling a small merge's expressions is a third of its processor time
(docs/figures.md, 0012)."""


@contextmanager
def set_for_merging(spark: SparkSession, changes: int) -> Iterator[None]:
    """Settings of the merge's own session, for the length of the block: a small merge in one task at a time."""
    chosen = dict(_ALWAYS)
    if changes <= _SMALL:
        chosen |= _ONE_TASK
        if spark.conf.get("spark.sql.codegen.wholeStage") == "false":
            chosen |= _INTERPRETED
    before = {name: spark.conf.get(name, None) for name in chosen}
    for name, value in chosen.items():
        spark.conf.set(name, value)
    try:
        yield
    finally:
        for name, previous in before.items():
            if previous is None:
                spark.conf.unset(name)
            else:
                spark.conf.set(name, previous)

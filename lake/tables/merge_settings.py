"""How Spark is to run a merge, by its size: what runs beside a small merge on the same cores feels it as little as can be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SMALL = 20_000
"""Changes that one task folds in a second or two."""

_ALWAYS = {"spark.databricks.delta.merge.materializeSource": "none"}  # the batch is kept
_ONE_TASK = {"spark.sql.shuffle.partitions": "1", "spark.sql.files.minPartitionNum": "1"}
_INTERPRETED = {"spark.sql.codegen.factoryMode": "NO_CODEGEN"}
"""For a session that compiles no stages: compiling a small merge's expressions is a quarter of its processor time."""


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
        for name, held in before.items():
            if held is None:
                spark.conf.unset(name)
            else:
                spark.conf.set(name, held)

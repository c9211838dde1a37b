"""Rows that key changes tie together: they are folded as one group, since a key change carries values from row to row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

GROUPS = "_key string, _root string"
_TEXT: pa.DataType = pa.string()
_SCHEMA = pa.schema([("_key", _TEXT), ("_root", _TEXT)])
_BATCH_ROWS = 4096


def grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Find each tied key's group: from each key to one key of its group (union-find)."""
    parents: dict[str, str] = {}

    def root(key: str) -> str:
        parents.setdefault(key, key)
        while parents[key] != key:
            parents[key] = parents[parents[key]]
            key = parents[key]
        return key

    for one, other in pairs:
        parents[root(one)] = root(other)
    return {key: root(key) for key in list(parents)}


def group_stage(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Group pairs of keys, as a function for `mapInArrow` over one partition; it holds the keys that ever changed."""
    pairs = ((row["_key"], row["_related_key"]) for batch in batches for row in batch.to_pylist())
    yield from pairs_table(grouped(pairs)).to_batches(_BATCH_ROWS)


def pairs_table(groups: Mapping[str, str]) -> pa.Table:
    """Keys and their groups as an Arrow table with the columns GROUPS, of which Spark makes a frame without a Python worker."""
    return pa.table([pa.array(list(groups), _TEXT), pa.array(list(groups.values()), _TEXT)], schema=_SCHEMA)


def with_group(frame: DataFrame, groups: DataFrame | None) -> DataFrame:
    """Give each row the `_group` of its `_key`: what GROUPS say, else the key itself."""
    if groups is None:
        return frame.withColumn("_group", F.col("_key"))
    return frame.join(groups, "_key", "left").withColumn("_group", F.coalesce("_root", "_key")).drop("_root")

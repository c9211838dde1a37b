"""What a batch of `changes` holds of each table, before anything is done with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from lake.tables.observed_types import ObservedTypes
from schemas.errors import UnavailableError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row


def summarized(frame: DataFrame, tables: Collection[str]) -> list[Row]:
    """For each of the tables in the batch: changes, their bytes, the newest TRUNCATE, key changes, the schemas named."""
    pair = F.when(F.col("_related_key").isNotNull(), F.struct("_key", "_related_key"))
    grouped = frame.groupBy("_table").agg(
        F.count("*").alias("changes"),
        F.coalesce(F.sum(F.length("value")), F.lit(0)).alias("bytes"),
        F.max(F.when(F.col("_op") == "t", F.col("_sequence"))).alias("truncated"),
        F.collect_set(pair).alias("pairs"),
        F.collect_set("_schema_id").alias("schema_ids"),
    )
    return [row for row in grouped.collect() if row["_table"] in tables]


def require_schemas(summaries: Sequence[Row], observed: Mapping[str, ObservedTypes]) -> None:
    """Raise UnavailableError while `schemas` lacks one that the batch names: landing writes it after `changes`."""
    for row in summaries:
        if set(row["schema_ids"]) - observed.get(row["_table"], ObservedTypes()).schema_ids:
            raise UnavailableError(f"schemas of {row['_table']} are landed with its changes, but a moment later")

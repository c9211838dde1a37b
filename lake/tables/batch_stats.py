"""Statistics of a batch of `changes` by table, and the counts of a merge or a load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from lake.layout import LakeLayout
from lake.tables.observed_types import ObservedTypes, announced
from schemas.errors import UnavailableError
from schemas.tables import TableConfig


@dataclass(frozen=True)
class TableCounts:
    """What a merge or a load did to one table."""

    changes: int = 0
    written: int = 0
    deleted: int = 0
    rejects: int = 0

    def named(self, verb: str) -> dict[str, int]:
        """The counts as `status` names them; `verb` is what became of the changes."""
        return {
            verb: self.changes, "rows written": self.written, "rows deleted": self.deleted, "rejects": self.rejects,
        }  # fmt: skip


def summarized(
    frame: DataFrame, layout: LakeLayout, tables: Mapping[str, TableConfig]
) -> list[tuple[Row, ObservedTypes]]:
    """For each of the tables in the batch: changes, their bytes, the newest TRUNCATE, key changes; and its types.

    Raises UnavailableError while `schemas` lacks one that the batch names: landing writes it after `changes`.
    """
    pair = F.when(F.col("_related_key").isNotNull(), F.struct("_key", "_related_key"))
    grouped = frame.groupBy("_table").agg(
        F.count("*").alias("changes"),
        F.coalesce(F.sum(F.length("value")), F.lit(0)).alias("bytes"),
        F.max(F.when(F.col("_op") == "t", F.col("_sequence"))).alias("truncated"),
        F.collect_set(pair).alias("pairs"),
        F.collect_set("_schema_id").alias("schema_ids"),
    )
    rows = [row for row in grouped.collect() if row["_table"] in tables]
    observed = announced(layout, tables.values())
    summaries = [(row, observed.get(row["_table"], ObservedTypes())) for row in rows]
    for row, types in summaries:
        if set(row["schema_ids"]) - types.schema_ids:
            raise UnavailableError(f"schemas of {row['_table']} are landed with its changes, but a moment later")
    return summaries

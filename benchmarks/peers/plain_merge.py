"""Debezium's events into a Delta table, as the common foreachBatch samples do it: `from_json`, the last of each key, MERGE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F


def newest_of(frame: DataFrame, columns: Mapping[str, str], order: str) -> DataFrame:
    """Flatten the events of rows with these columns, `id` their key, and keep the last of each key by the column `order`."""
    row = f"struct<{','.join(f'{name}:{kind}' for name, kind in columns.items())}>"
    envelope = f"op string, before {row}, after {row}"
    events = frame.where("value IS NOT NULL").select(
        F.from_json(F.col("value").cast("string"), envelope).alias("e"), order
    )
    others = [f"e.after.{name}" for name in columns if name != "id"]
    flat = events.selectExpr("e.op op", "coalesce(e.after.id, e.before.id) id", *others, order)
    newest = Window.partitionBy("id").orderBy(F.desc(order))
    return flat.withColumn("n", F.row_number().over(newest)).where("n = 1").drop("n")


def merge_into(table: DeltaTable, newest: DataFrame, columns: Mapping[str, str]) -> None:
    """MERGE what `newest_of` has kept."""
    values: dict[str, Any] = {name: f"s.{name}" for name in columns}
    merging = table.alias("t").merge(newest.alias("s"), "t.id = s.id").whenMatchedDelete("s.op = 'd'")
    merging.whenMatchedUpdate(set=values).whenNotMatchedInsert("s.op <> 'd'", values=values).execute()

"""One table's changes in a batch: a few are folded by the driver, which spares every table three Spark jobs; many by a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from lake.history.key_groups import pairs_table, with_group
from lake.layout import RAW_COLUMNS
from warehouse.folding import OUTCOME_DDL, STORED, LoadPartition, LoadSettings, Outcome, together

type StoredRows = Mapping[str, tuple[int, str]]
"""Revision and state of stored rows, by key."""

FEW_CHANGES = 5_000
FEW_BYTES = 16 * 1024 * 1024
"""What the driver folds by itself, of all tables together: well under a second of one core, a load is a minute apart."""
_TASK_CHANGES = 20_000
"""Changes for one task to fold."""
_MOST_TASKS = 64


class TableChanges(Protocol):
    """Changes of rows of one table, without its TRUNCATEs."""

    def keys(self) -> set[str]:
        """The rows that are touched, or that a key change ties to them."""

    def staged(self, settings: LoadSettings, stored: StoredRows, groups: Mapping[str, str]) -> Outcome:
        """Fold them into stored rows, and stage what changed."""


@dataclass(frozen=True)
class FewChanges:
    """Changes in the driver's memory: rows of `changes`."""

    rows: Sequence[Mapping[str, Any]]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The keys that they tie."""
        return [(row["_key"], row["_related_key"]) for row in self.rows if row["_related_key"] is not None]

    def keys(self) -> set[str]:
        """Look at each."""
        return {row[name] for row in self.rows for name in ("_key", "_related_key") if row[name] is not None}

    def staged(self, settings: LoadSettings, stored: StoredRows, groups: Mapping[str, str]) -> Outcome:
        """Fold them here."""
        records: list[dict[str, Any]] = [dict(row) | {"_state": None} for row in self.rows]
        rows = [row | {"_group": groups.get(row["_key"], row["_key"])} for row in records + _states(stored)]
        return LoadPartition(settings).staged(sorted(rows, key=lambda row: row["_group"]))


@dataclass(frozen=True)
class ManyChanges:
    """Changes that Spark holds: rows of `changes`, and how many they are."""

    frame: DataFrame
    changes: int

    def keys(self) -> set[str]:
        """Bring the distinct ones here."""
        keys = self.frame.select(F.explode(F.array_compact(F.array("_key", "_related_key"))).alias("_key")).distinct()
        return {str(key) for key in keys.toArrow().column("_key").to_pylist()}

    def staged(self, settings: LoadSettings, stored: StoredRows, groups: Mapping[str, str]) -> Outcome:
        """Shuffle them with the stored rows, so that rows tied by key changes lie together, and fold them where they lie."""
        spark = self.frame.sparkSession
        rows = self.frame.select(*RAW_COLUMNS, "_source", "_key")
        states = spark.createDataFrame(pa.Table.from_pylist(_states(stored), STORED))
        rows = rows.unionByName(states, allowMissingColumns=True)
        tied = F.broadcast(spark.createDataFrame(pairs_table(groups))) if groups else None
        tasks = min(_MOST_TASKS, 1 + self.changes // _TASK_CHANGES)
        shuffled = with_group(rows, tied).repartition(tasks, "_group").sortWithinPartitions("_group")
        return together(shuffled.mapInArrow(LoadPartition(settings), OUTCOME_DDL).collect())


def changes_of(frame: DataFrame, summaries: Sequence[Row]) -> dict[str, TableChanges]:
    """Each table's changes, for the tables of a batch that were summarized."""
    rows = frame.filter(F.col("_op") != "t")
    few = (
        sum(row["changes"] for row in summaries) <= FEW_CHANGES and sum(row["bytes"] for row in summaries) <= FEW_BYTES
    )
    if not few:
        return {
            row["_table"]: ManyChanges(rows.filter(F.col("_table") == row["_table"]), row["changes"])
            for row in summaries
        }
    tables: dict[str, list[dict[str, Any]]] = {row["_table"]: [] for row in summaries}
    rows = rows.filter(F.col("_table").isin(*tables)).select(*_READ)
    for row in rows.toArrow().to_pylist():
        tables[row["_table"]].append(row)
    return {table: FewChanges(table_rows) for table, table_rows in tables.items()}


def history_of(spark: SparkSession, changes: str, table: str, keys: Sequence[str]) -> FewChanges:
    """All changes of some rows of a table that have landed in the lake's `changes`."""
    named = F.broadcast(spark.createDataFrame(pa.table({"_key": pa.array(keys, pa.string())})))
    rows = spark.read.format("delta").load(changes).filter((F.col("_table") == table) & (F.col("_op") != "t"))
    return FewChanges(rows.join(named, "_key", "left_semi").select(*_READ).toArrow().to_pylist())


_READ = (*RAW_COLUMNS, "_source", "_table", "_key", "_related_key")


def _states(stored: StoredRows) -> list[dict[str, Any]]:
    return [{"_key": key, "_revision": revision, "_state": state} for key, (revision, state) in stored.items()]

"""One table's changes in a batch: a few are folded by the driver, which spares every table three Spark jobs; many by a stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
from pyspark.sql import functions as F

from lake.history.key_groups import GROUPS, with_group
from lake.layout import RAW_COLUMNS
from warehouse.folding import OUTCOME_DDL, LoadPartition, LoadSettings, Outcome, together

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row

type Held = Mapping[str, tuple[int, str]]
"""Revision and state of stored rows, by key."""

FEW_CHANGES = 5_000
FEW_BYTES = 16 * 1024 * 1024
"""What the driver folds by itself, of all tables together: well under a second of one core, a load is a minute apart."""
_TASK_CHANGES = 20_000
"""Changes for one task to fold."""
_MOST_TASKS = 64


class TableChanges(Protocol):
    """Changes of rows of one table; its TRUNCATEs are told elsewhere."""

    def keys(self) -> set[str]:
        """The rows that are touched, or that a key change ties to them."""

    def staged(self, settings: LoadSettings, held: Held, groups: Mapping[str, str]) -> Outcome:
        """Fold them into stored rows, and stage what changed."""


class FewChanges:
    """Changes in the driver's memory."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep rows of `changes`."""
        self._rows = rows

    def keys(self) -> set[str]:
        """Look at each."""
        return {row[name] for row in self._rows for name in ("_key", "_related_key") if row[name] is not None}

    def staged(self, settings: LoadSettings, held: Held, groups: Mapping[str, str]) -> Outcome:
        """Fold them here."""
        records: list[dict[str, Any]] = [dict(row) | {"_state": None} for row in self._rows]
        stored = [{"_key": key, "_revision": revision, "_state": state} for key, (revision, state) in held.items()]
        rows = [row | {"_group": groups.get(row["_key"], row["_key"])} for row in records + stored]
        return LoadPartition(settings).staged(sorted(rows, key=lambda row: row["_group"]))


class ManyChanges:
    """Changes that Spark holds."""

    def __init__(self, frame: DataFrame, changes: int) -> None:
        """Keep rows of `changes`, and how many they are."""
        self._frame = frame
        self._changes = changes

    def keys(self) -> set[str]:
        """Bring the distinct ones here."""
        keys = self._frame.select(F.explode(F.array_compact(F.array("_key", "_related_key"))).alias("_key")).distinct()
        return {str(key) for key in keys.toArrow().column("_key").to_pylist()}

    def staged(self, settings: LoadSettings, held: Held, groups: Mapping[str, str]) -> Outcome:
        """Shuffle them with the stored rows, so that rows tied by key changes lie together, and fold them where they lie."""
        spark = self._frame.sparkSession
        rows = self._frame.select(*RAW_COLUMNS, "_source", "_key")
        rows = rows.unionByName(spark.createDataFrame(_states(held)), allowMissingColumns=True)
        tied = F.broadcast(spark.createDataFrame(list(groups.items()), GROUPS)) if groups else None
        tasks = min(_MOST_TASKS, 1 + self._changes // _TASK_CHANGES)
        shuffled = with_group(rows, tied).repartition(tasks, "_group").sortWithinPartitions("_group")
        answers = shuffled.mapInArrow(LoadPartition(settings), OUTCOME_DDL).collect()
        return together(row["outcome"] for row in answers)


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
    told = rows.filter(F.col("_table").isin(*tables)).select(*RAW_COLUMNS, "_source", "_table", "_key", "_related_key")
    for row in told.toArrow().to_pylist():
        tables[row["_table"]].append(row)
    return {table: FewChanges(found) for table, found in tables.items()}


def _states(held: Held) -> pa.Table:
    def column(values: Iterable[Any], kind: pa.DataType) -> Any:
        return pa.array(list(values), kind)

    return pa.table({
        "_key": column(held, pa.string()),
        "_revision": column((revision for revision, _ in held.values()), pa.int64()),
        "_state": column((state for _, state in held.values()), pa.string()),
    })  # fmt: skip

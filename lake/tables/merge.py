"""Current tables: `changes` folded into one typed row a key, by one MERGE a table and clock.

Any cut of the changes into batches, any order and any repeat leaves the same rows (I2, I3). A batch killed at any point
and run again leaves what one run leaves: no step needs the next, and steps that remove come after those that keep.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import operator
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.sql import functions as F

from lake.history.key_groups import grouped, pairs_table, with_group
from lake.landing.batch import create_tables
from lake.layout import RAW_COLUMNS, RESERVED, STATS_COLUMNS, LakeLayout
from lake.maintenance import optimize, purge, vacuum
from lake.rejects import rejected
from lake.storage import append, append_rows, create, kept, rows_of
from lake.table_schemas import TOMBSTONES
from lake.tables.batch_stats import TableCounts, summarized
from lake.tables.drift import refuse_drift
from lake.tables.folding import FoldSettings, fold_stage, output_schema
from lake.tables.merge_settings import set_for_merging
from lake.tables.observed_types import ObservedTypes, announced
from lake.tables.shape import TableShape, allow_names, create_or_extend, evolved, set_deletion_vectors, stored_shape
from schemas.errors import StoppedError, UnavailableError
from transforms.values import exact_json

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row, SparkSession

    from lake.landing.batch import Transaction
    from schemas.tables import TableConfig
    from transforms.context import DecodeContext

_SIDE_BY_SIDE = 4
"""Tables merged at once: most of a MERGE waits for storage and planning."""
_BROADCAST_ROWS = 200_000
"""Changes of a table up to which their keys are sent to every task, so that the table itself is never shuffled."""
_ROUNDS = 20
"""Times a batch is folded into a table anew; each is lost only to another driver's progress, or to a new column."""
_OPTIMIZE_EVERY = 30
_VACUUM_EVERY = 1500
"""Merges of a table between two compactions, and between two clean-ups: half an hour and a day at a merge a minute."""


class TableMerger:
    """Merges batches of `changes` into the current tables, tables side by side."""

    def __init__(
        self,
        layout: LakeLayout,
        tables: Sequence[TableConfig],
        contexts: Mapping[str, DecodeContext],
        on_step: Callable[[str], None] = lambda _: None,
        *,
        deletion_vectors: bool = False,
    ) -> None:
        """Create the tables that are missing; `contexts` are the decode contexts by source.

        With `deletion_vectors` a merge marks rows as gone in files that it leaves in place (ADR 0058).

        `on_step` is told what is to be written next: `tombstones`, `merge`, `purge` or `truncate`, from several threads.
        """
        self._on_step = on_step
        self._layout = layout
        self._tables = {table.table: table for table in tables}
        self._contexts = contexts
        self._deletion_vectors = deletion_vectors
        self._merges: dict[str, int] = {}
        # Anywhere between two clean-ups: a driver that is restarted each day does its share of them too.
        self._vacuum_offset = random.randrange(_VACUUM_EVERY)  # noqa: S311
        create_tables(layout)
        create(layout.path("tombstones"), TOMBSTONES, stats=STATS_COLUMNS["tombstones"], partition_by=["_table"])

    def merge(self, frame: DataFrame, transaction: Transaction) -> dict[str, TableCounts]:
        """Merge one batch of rows of `changes`; run again, it finds nothing left to do."""
        summaries = summarized(frame, self._layout, self._tables)

        def merged(summarized_table: tuple[Row, ObservedTypes]) -> tuple[str, TableCounts]:
            summary, observed = summarized_table
            table = self._tables[summary["_table"]]
            merge = self._of(frame, table, observed)
            counts = merge.run(summary, transaction)
            self._maintain(frame.sparkSession, table.table)
            return table.table, counts

        changes = sum(summary["changes"] for summary, _ in summaries)
        with set_for_merging(frame.sparkSession, changes), ThreadPoolExecutor(_SIDE_BY_SIDE, "merge") as pool:
            return dict(pool.map(merged, summaries))

    def settle(self, spark: SparkSession) -> None:
        """Bring the tables to the shape that the configuration asks for, also those without a change to merge.

        A table whose drift stops the merge is left: the batch that meets it says so.
        """
        observed = announced(self._layout, self._tables.values())
        nothing = spark.createDataFrame([], "_table string")
        for name, table in self._tables.items():
            merge = self._of(nothing, table, observed.get(name, ObservedTypes()))
            with contextlib.suppress(StoppedError):
                merge.settle()

    def _of(self, frame: DataFrame, table: TableConfig, observed: ObservedTypes) -> _TableMerge:
        return _TableMerge(
            frame, self._layout, table, self._contexts, observed, self._on_step, deletion_vectors=self._deletion_vectors
        )

    def _maintain(self, spark: SparkSession, table: str) -> None:
        self._merges[table] = done = self._merges.get(table, 0) + 1
        if done % _OPTIMIZE_EVERY == 0:
            optimize(spark, self._layout.table(table))
        if (self._vacuum_offset + done) % _VACUUM_EVERY == 0:
            purge(spark, self._layout.table(table))
            vacuum(spark, self._layout.table(table))


@dataclass
class _TableMerge:
    """One table's part of one batch."""

    frame: DataFrame
    layout: LakeLayout
    table: TableConfig
    contexts: Mapping[str, DecodeContext]
    observed: ObservedTypes
    on_step: Callable[[str], None] = lambda _: None
    deletion_vectors: bool = False
    groups: dict[str, str] = field(default_factory=dict)
    truncated: str = ""

    @property
    def spark(self) -> SparkSession:
        return self.frame.sparkSession

    @property
    def name(self) -> str:
        return self.table.table

    @property
    def path(self) -> str:
        return self.layout.table(self.name)

    def run(self, summary: Row, transaction: Transaction) -> TableCounts:
        newest = summary["truncated"] or ""
        known, key_moves = self._truncation_and_moves()
        self.truncated = max(newest, known)
        if newest > known:
            self._note_truncation(newest, transaction)
        self.groups = grouped([*key_moves, *((p["_key"], p["_related_key"]) for p in summary["pairs"])])
        shape = self._shape()
        few = summary["changes"] <= _BROADCAST_ROWS
        for _ in range(_ROUNDS):
            with contextlib.ExitStack() as until_written:
                folded, counts = self._batch(shape, until_written, few=few, lagging=bool(newest))
                if counts["unknown"]:
                    shape = self._shape(counts["unknown"])
                elif self._write(folded, shape, counts, transaction):
                    break
        else:
            raise UnavailableError(f"{self.name}: other drivers' merges were first {_ROUNDS} times")
        if newest:
            self.on_step("truncate")
            self._delete(f"_sequence <= '{self.truncated}'", self.path)
        return TableCounts(summary["changes"], counts["live"], counts["deleted"], counts["rejects"])

    def _truncation_and_moves(self) -> tuple[str, list[tuple[str, str]]]:
        """The newest TRUNCATE known, and the key changes that late older changes must follow."""
        import pyarrow.dataset as ds

        condition = (ds.field("_table") == self.name) & ((ds.field("_op") == "t") | ds.field("_moves").is_valid())
        columns = ["_op", "_sequence", "_key", "_moves"]
        rows = rows_of(self.layout.path("tombstones"), columns, condition)
        truncated = max((r["_sequence"] for r in rows if r["_op"] == "t"), default="")
        return truncated, [(r["_key"], other) for r in rows for other in r["_moves"] or ()]

    def _note_truncation(self, sequence: str, transaction: Transaction) -> None:
        now = dt.datetime.now(dt.UTC)
        row = {"_table": self.name, "_op": "t", "_sequence": sequence, "_ingest_time": now, "_key": ""}
        rows = pa.Table.from_pylist([row], TOMBSTONES)
        append_rows(self.layout.path("tombstones"), rows, transaction(f"tombstones:truncate:{self.name}"))

    def settle(self) -> None:
        """Bring a table that is there to its shape; the rows that a TRUNCATE covers go with the next merge."""
        if (current := stored_shape(self.spark, self.path)) is not None:
            self._shape([column.source for column in current.columns])
            set_deletion_vectors(self.spark, self.path, wanted=self.deletion_vectors)

    def _shape(self, seen: Iterable[str] = ()) -> TableShape:
        """Bring the table to the shape that declared and announced types ask for."""
        seen = list(seen)
        refuse_drift(self.table, self.observed, seen)
        current = stored_shape(self.spark, self.path)
        shape = evolved(current or TableShape(), self.table, self.observed, [*self.table.keys, *seen])
        if current and (current.outgrown(shape) or self._has_waiting(current, shape)):
            self._rewrite(current, shape)
        else:
            create_or_extend(self.spark, self.path, current, shape, deletion_vectors=self.deletion_vectors)
        return shape

    def _has_waiting(self, current: TableShape, shape: TableShape) -> bool:
        """Whether stored rows have to say something of a new column.

        Either its values are in their states, as it had been left out or had another name, or it came with a default that they
        have at the source, and is pending.
        """
        new = shape.kinds.keys() - current.kinds.keys()
        if not new:
            return False
        if not new.isdisjoint(self.observed.defaulted):
            return True
        names = [exact_json.dumps(name) for name in new]
        stored = self.spark.read.format("delta").load(self.path)
        named = reduce(operator.or_, (F.col("_state").contains(f"{name}:") for name in names))
        return not stored.filter(named).select("_key").limit(1).isEmpty()

    def _rewrite(self, current: TableShape, shape: TableShape) -> None:
        """Give every row its new types, exactly: from the states, in one commit."""
        allow_names(self.spark, self.path, current, shape)
        rows = self._stored(current).withColumn("_group", F.col("_key"))
        with kept(self._folded(rows, current, shape)) as folded:
            if _counted(folded)["rejects"]:
                append(_rejects(folded, self.name), self.layout.path("rejects"))
            writer = self._table_rows(folded.filter("_live"), shape).write.format("delta").mode("overwrite")
            writer.option("overwriteSchema", "true").save(self.path)

    def _batch(
        self, shape: TableShape, until_written: contextlib.ExitStack, *, few: bool, lagging: bool
    ) -> tuple[DataFrame, Row]:
        """Fold the batch; stored rows are first read without their values, which most changes replace anyway."""
        records = self.frame.filter((F.col("_table") == self.name) & (F.col("_op") != "t"))
        records = self._with_group(records.select(*RAW_COLUMNS, "_source", "_key"))
        whole = lagging or not few
        inputs = self._inputs(records, shape, few=few, lagging=lagging, values=whole)
        folded = until_written.enter_context(kept(self._folded(inputs, shape, shape)))
        counts = _counted(folded)
        if not counts["unread"]:
            return folded, counts
        groups = F.broadcast(folded.filter("_unread").select(F.col("_key").alias("_group")))
        inputs = self._inputs(records.join(groups, "_group", "left_semi"), shape, few=few, lagging=False, values=True)
        anew = folded.filter("NOT _unread").unionByName(self._folded(inputs, shape, shape))
        folded = until_written.enter_context(kept(anew))
        return folded, _counted(folded)

    def _inputs(self, records: DataFrame, shape: TableShape, *, few: bool, lagging: bool, values: bool) -> DataFrame:
        """Records, and the stored rows and tombstones they meet, by group.

        After a TRUNCATE, rows with columns older than their newest change are read as well.
        """
        keys = records.select("_group")
        keys = F.broadcast(keys) if few else keys
        stored = self._with_group(self._stored(shape, values=values))
        concerned = stored.join(keys, "_group", "left_semi")
        if lagging:
            lag = stored.filter(F.col("_state").contains('"r":')).join(keys, "_group", "left_anti")
            concerned = concerned.unionByName(lag)
        tombstones = self.spark.read.format("delta").load(self.layout.path("tombstones"))
        tombstones = tombstones.filter((F.col("_table") == self.name) & (F.col("_op") == "d"))
        tombstones = tombstones.select("_key", "_state", F.lit("tombstone").alias("_from"))
        tombstones = self._with_group(tombstones).join(keys, "_group", "left_semi")
        rows = concerned.unionByName(records, allowMissingColumns=True)
        return rows.unionByName(tombstones, allowMissingColumns=True)

    def _stored(self, shape: TableShape, *, values: bool = True) -> DataFrame:
        stored = self.spark.read.format("delta").load(self.path)
        row = F.struct(*(F.col(quoted(c.name)) for c in shape.columns)) if shape.columns else F.lit(None)
        read = [F.lit("table").alias("_from"), row.alias("_row")] if values else [F.lit("look").alias("_from")]
        return stored.select("_key", "_op", "_state", F.expr(_VERSION).alias("_version"), *read)

    def _with_group(self, frame: DataFrame) -> DataFrame:
        if not self.groups:
            return with_group(frame, None)
        return with_group(frame, F.broadcast(self.spark.createDataFrame(pairs_table(self.groups))))

    def _folded(self, rows: DataFrame, current: TableShape, shape: TableShape) -> DataFrame:
        from pyspark.sql.pandas.types import from_arrow_schema

        settings = FoldSettings.of(self.table, self.observed, self.contexts, current, shape, self.truncated)
        absent = {n: F.lit(None).cast(t) for n, t in _INPUT_TYPES.items() if n not in rows.columns}
        rows = rows.withColumns(absent) if absent else rows
        shuffled = rows.repartition("_group").sortWithinPartitions("_group")
        schema = from_arrow_schema(output_schema(shape), prefer_timestamp_ntz=True)
        return shuffled.mapInArrow(fold_stage(settings, dt.datetime.now(dt.UTC)), schema)

    def _write(self, folded: DataFrame, shape: TableShape, counts: Row, transaction: Transaction) -> bool:
        """Write the folded rows; False when another driver changed one of the rows since they were read.

        Tombstones are appended without a transaction: the fold names one only while the lake holds less.
        """
        if counts["rejects"]:
            rows = _rejects(folded, self.name)
            append(rows, self.layout.path("rejects"), transaction(f"rejects:{self.name}"))
        if counts["tombstones"]:
            tombstones = folded.filter("_tombstone IS NOT NULL").select(
                F.lit(self.name).alias("_table"), F.lit("d").alias("_op"), "_sequence", "_ingest_time",
                "_key", F.col("_tombstone").alias("_state"), "_moves",
            )  # fmt: skip
            self.on_step("tombstones")
            append(tombstones, self.layout.path("tombstones"))
        self.on_step("merge")
        changed = counts["live"] + counts["deleted"]
        if changed and self._merge(self._table_rows(folded, shape, "_live", "_version"), shape) < changed:
            return False
        if counts["purge"]:
            self.on_step("purge")
            self._purge([row["_key"] for row in folded.filter("_purge").select("_key").collect()])
        return True

    def _table_rows(self, folded: DataFrame, shape: TableShape, *more: str) -> DataFrame:
        columns = [F.col(f"_row.{quoted(c.name)}").alias(c.name, metadata=c.metadata) for c in shape.columns]
        return folded.select(*columns, *RESERVED, *more)

    def _merge(self, rows: DataFrame, shape: TableShape) -> int:
        """Write rows where the table still has the version that they were folded from (I2); returns how many it were."""
        from delta import DeltaTable

        names = [c.name for c in shape.columns] + list(RESERVED)
        values: dict[str, Any] = {quoted(name): F.col(f"s.{quoted(name)}") for name in names}
        rows = rows.filter(_CHANGES_THE_TABLE)
        merge = DeltaTable.forPath(self.spark, self.path).alias("t").merge(rows.alias("s"), "t._key = s._key")
        merge = merge.whenMatchedDelete(f"NOT s._live AND s._version = {_VERSION_OF_TARGET}")
        merge = merge.whenMatchedUpdate(f"s._live AND s._version = {_VERSION_OF_TARGET}", values)
        done = merge.whenNotMatchedInsert("s._live AND s._version IS NULL", values).execute().first()
        return int(done["num_affected_rows"]) if done else 0

    def _purge(self, keys: Sequence[str]) -> None:
        """Delete tombstones with values for rows that had not come yet, once they have (I4)."""
        condition = (F.col("_table") == self.name) & F.col("_key").isin(*keys) & F.col("_moves").isNull()
        self._delete(condition, self.layout.path("tombstones"))

    def _delete(self, condition: Any, path: str) -> None:
        from delta import DeltaTable

        DeltaTable.forPath(self.spark, path).delete(condition)


_VERSION = "concat(_sequence, '@', unix_micros(_ingest_time))"
"""The version of a row: written again, it has another time."""
_CHANGES_THE_TABLE = "_op <> 'd' OR _version > ''"
"""Of folded rows: all but deletes of rows that are not there. Spark makes Bloom filters only of rows that were filtered."""
_VERSION_OF_TARGET = "concat(t._sequence, '@', unix_micros(t._ingest_time))"
_INPUT_TYPES: Mapping[str, str] = {
    "_group": "string", "_version": "string", "_from": "string", "_key": "string", "_op": "string", "_state": "string",
    "_source": "string", "stream": "string", "partition": "string", "position": "string", "key": "binary",
    "value": "binary", "headers": "array<struct<key:string,value:binary>>", "timestamp": "timestamp",
}  # fmt: skip
"""What `lake.tables.folding` reads of a row beside `_row`."""


def _counted(folded: DataFrame) -> Row:
    """Evaluate the fold, and count what there is to write."""
    number: Callable[[str], Any] = lambda condition: F.count_if(F.expr(condition))  # noqa: E731
    row = folded.agg(
        number("_live").alias("live"),
        number("_version IS NOT NULL AND NOT _live").alias("deleted"),
        number("_tombstone IS NOT NULL").alias("tombstones"),
        number("_purge").alias("purge"),
        number("_unread").alias("unread"),
        F.coalesce(F.sum(F.size("_rejects")), F.lit(0)).alias("rejects"),
        F.array_distinct(F.flatten(F.collect_set("_unknown"))).alias("unknown"),
    ).first()
    assert row is not None  # noqa: S101 - an aggregate without groups has one row
    return row


def _rejects(folded: DataFrame, table: str) -> DataFrame:
    """Cells that do not fit their column, by key and column; the value stays in the row's state."""
    cells = folded.filter("_rejects IS NOT NULL").select("_key", "_ingest_time", F.explode("_rejects").alias("cell"))
    unfit, value = F.col("cell.kind").isNotNull(), F.concat(F.lit("a value of column "), "cell.column")
    why = F.when(unfit, F.concat(F.lit(f" of {table} does not fit its type "), "cell.kind")).otherwise(
        f" came after {table}'s first schema, and its `drift` is reject"
    )
    condition = F.when(unfit, "CAST_FAILED").otherwise("SCHEMA_DRIFT")
    return rejected(
        cells.select(
            "_key", F.lit(table).alias("_table"), condition.alias("condition"), F.concat(value, why).alias("message"),
            F.col("cell.column").alias("column"), F.col("cell.sequence").alias("_sequence"),
            "_ingest_time", F.col("_ingest_time").cast("date").alias("_ingest_date"),
        ),
        "merge",
    )  # fmt: skip


def quoted(name: str) -> str:
    """A column's name as Spark's expressions take it."""
    escaped = name.replace("`", "``")
    return f"`{escaped}`"

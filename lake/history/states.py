"""Every row of a table as the fold of its whole history, as a stage of a Spark job: what any store can be filled from.

The rules are `transforms.fold`'s. Nothing but `changes` is read, and nothing on the driver grows with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from lake.history.current import changes_in
from lake.history.key_groups import GROUPS, group_stage, with_group
from lake.layout import RAW_COLUMNS, LakeLayout
from lake.storage import open_table
from transforms.context import DecodeContext
from transforms.documents.planning import DocumentSpec, narrowed
from transforms.fold import EMPTY, Rows, RowState, apply, encode
from transforms.values import exact_json

STATES = "_key string, _state string"
"""A row's key, and its state as `transforms.fold.encode` renders it."""
_SCHEMA = pa.schema([("_key", pa.string()), ("_state", pa.string())])
_BATCH_ROWS = 1024


@dataclass(frozen=True)
class History:
    """The rows of one table in `changes`, as of one version of it."""

    rows: DataFrame
    changes: int
    truncated: str
    """The newest TRUNCATE, by sequence; empty when there was none."""
    landed: str
    """The newest sequence of all."""
    tied: bool
    """Whether a key ever changed."""


@dataclass(frozen=True)
class StateSettings:
    """What the stage needs to know; plain data, so it pickles."""

    spec: DocumentSpec
    """The table, and the columns that are wanted of it."""
    contexts: Mapping[str, DecodeContext]
    """By source."""
    on_changes: Callable[[int], None]
    """Told how many changes were read."""


def history_of(spark: SparkSession, layout: LakeLayout, table: str) -> History | None:
    """A table's changes at the newest version of `changes`; None when nothing was ever landed."""
    path = layout.path("changes")
    snapshot = open_table(path)
    if snapshot is None:
        return None
    changes = spark.read.format("delta").option("versionAsOf", snapshot.version()).load(path)
    rows = changes.filter(F.col("_table") == table)
    totals = rows.agg(
        F.count("*").alias("changes"),
        F.max(F.when(F.col("_op") == "t", F.col("_sequence"))).alias("truncated"),
        F.max("_sequence").alias("landed"),
        F.count("_related_key").alias("ties"),
    ).first()
    assert totals is not None  # noqa: S101 - an aggregate without groups has one row
    return History(rows, totals["changes"], totals["truncated"] or "", totals["landed"] or "", totals["ties"] > 0)


def by_group(history: History, partitions: int, keys: DataFrame | None = None) -> DataFrame:
    """Shuffle the changes of rows, so that rows tied by key changes lie together: what `state_stage` folds.

    With `keys` (a column `_key`) only the groups that these are in.
    """
    rows = history.rows.filter(F.col("_op") != "t").select(*RAW_COLUMNS, "_source", "_key", "_sequence")
    groups = _groups(history) if history.tied else None
    grouped = with_group(rows, groups)
    if keys is not None:
        grouped = grouped.join(with_group(keys, groups).select("_group").distinct(), "_group", "left_semi")
    return grouped.repartition(partitions, "_group").sortWithinPartitions("_group", "_sequence")


def keys_between(history: History, spans: Mapping[str, tuple[int, int]]) -> DataFrame:
    """The keys (`_key`) of rows that were changed between two positions, both included, by `stream/partition`."""

    def order(number: Column) -> Column:
        return F.struct(F.length(number), number)

    position = order(F.substring_index("position", ":", 1))  # without the place in an aggregated record of Kinesis
    condition = F.lit(False)  # noqa: FBT003 - Spark's own
    for place, (first, last) in spans.items():
        stream, _, partition = place.rpartition("/")
        in_span = (F.col("stream") == stream) & (F.col("partition") == partition)
        condition |= in_span & position.between(order(F.lit(str(first))), order(F.lit(str(last))))
    return history.rows.filter(condition).select("_key").distinct()


def _groups(history: History) -> DataFrame:
    pairs = history.rows.filter(F.col("_related_key").isNotNull()).select("_key", "_related_key").distinct()
    return pairs.repartition(1).mapInArrow(group_stage, GROUPS)


def state_stage(settings: StateSettings) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """A function for `mapInArrow` from rows of `changes` sorted by `_group` to STATES, a group at a time.

    The same set of changes, however ordered, repeated and cut, gives the same states.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = (row for batch in batches for row in _counted(batch, settings).to_pylist())
        groups = itertools.groupby(rows, key=lambda row: row["_group"])
        states = (state for _, group in groups for state in _fold(group, settings))
        for batch_of_states in itertools.batched(states, _BATCH_ROWS):
            yield pa.RecordBatch.from_pylist(
                [{"_key": key, "_state": exact_json.dumps(encode(state))} for key, state in batch_of_states], _SCHEMA
            )

    return run


def _counted(batch: pa.RecordBatch, settings: StateSettings) -> pa.RecordBatch:
    settings.on_changes(batch.num_rows)
    return batch


def _fold(group: Iterable[Mapping[str, object]], settings: StateSettings) -> Iterator[tuple[str, RowState]]:
    """Fold one group; rows that key changes emptied come last, as they must be written (`indexing.optimistic_writer`)."""
    states = Rows()
    for row in group:
        for change in changes_in(row, settings.spec.table, settings.contexts):
            if change.op != "t":
                apply(states, change)
    narrowed_states = [(key, narrowed(state, settings.spec)) for key, state in states.items() if state != EMPTY]
    return iter(sorted(narrowed_states, key=lambda item: bool(item[1].key_moves) and not item[1].exists))

"""From stream records to `changes`, `rejects` and counted ignores: each record in exactly one of them (I6)."""

from __future__ import annotations

import datetime as dt
import json
import pickle
from collections.abc import Callable, Iterable, Mapping

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lake.landing.decoding import Tally, decoded
from lake.landing.landed_files import OUTCOME_DDL, LandPartition, Outcome, append
from lake.landing.unconfigured import LeftOutLog
from lake.layout import RAW_COLUMNS, STATS_COLUMNS, LakeLayout
from lake.registered_schemas import TABLE, keep, kept_names
from lake.rejects import create_rejects
from lake.storage import append_rows, create, rows_of
from lake.table_schemas import CHANGES, IGNORED, REGISTERED_SCHEMAS, SCHEMAS
from schemas.changes import SeenSchema
from transforms.context import DecodeContext
from transforms.drift import key_gone

type Transaction = Callable[[str], Mapping[str, str]]
"""From a table's name to the Delta writer options that make this batch's append to it happen once."""


class Landing:
    """Lands batches of one source.

    A batch landed again, whole or after a kill at any point, leaves the tables as landing it once: every append carries
    the batch's transaction. The counts come from the tasks of the very action that wrote.
    """

    def __init__(self, layout: LakeLayout, source: str, context: DecodeContext) -> None:
        """Create the tables that are missing and read which schemas are known."""
        self._layout = layout
        self._source = source
        self._context = context
        create_tables(layout)
        self._left_out = LeftOutLog()
        self._known = known_schemas(layout, source)
        self._registered = kept_names(layout, source)

    def land(
        self, frame: DataFrame, transaction: Transaction, admit: Callable[[Tally], None] = lambda _: None
    ) -> Tally:
        """Write one batch of RECORD_COLUMNS; the records are read once. Where `admit` raises, nothing becomes part of a table."""
        outcome = self._written(frame)
        for message in outcome.tally.keys_gone.values():
            raise key_gone(message)
        admit(outcome.tally)
        self._keep_registered(outcome.tally, transaction)  # before the changes: whoever reads these needs them
        append(self._layout.path("changes"), outcome.changes, transaction("changes"))
        if outcome.rejects:
            append(self._layout.path("rejects"), outcome.rejects, transaction("rejects"))
        self._note_ignored(outcome.tally, transaction)
        self._note_schemas(outcome.tally, transaction)
        self._left_out.add(outcome.tally)
        return outcome.tally

    def _written(self, frame: DataFrame) -> Outcome:
        stage = LandPartition(self._layout.root, self._source, self._context, decoded, dt.datetime.now(dt.UTC))
        *plain, headers, timestamp = RAW_COLUMNS
        # Spark asks the size of what it sends at every row, and an array that is NULL takes it longer each time.
        sent = F.coalesce(headers, F.array().cast(frame.schema[headers].dataType)).alias(headers)
        rows = frame.select(*plain, sent, timestamp, F.col(headers).isNull().alias("no_headers"))
        total = Outcome()
        for row in rows.mapInArrow(stage, OUTCOME_DDL).collect():
            total.add(pickle.loads(row["outcome"]))  # noqa: S301 - made by this very action
        return total

    def _keep_registered(self, tally: Tally, transaction: Transaction) -> None:
        new = tally.registered - self._registered
        if new and self._context.registry is not None:
            keep(self._layout, self._source, self._context.registry, new, transaction(TABLE))
            self._registered |= new

    def _note_ignored(self, tally: Tally, transaction: Transaction) -> None:
        now = dt.datetime.now(dt.UTC)
        rows = [
            {
                "stream": stream, "partition": partition, "_source": self._source, "_table": table or None,
                "reason": reason, "records": count, "_ingest_time": now,
            }
            for (stream, partition, table, reason), count in tally.ignored.items()
        ]  # fmt: skip
        if rows:
            append_rows(self._layout.path("ignored"), pa.Table.from_pylist(rows, IGNORED), transaction("ignored"))

    def _note_schemas(self, tally: Tally, transaction: Transaction) -> None:
        if new := new_schemas(tally, self._known):
            append_rows(self._layout.path("schemas"), schema_rows(self._source, new), transaction("schemas"))
            self._known |= {(seen.table, seen.schema_id): seen.sequence for seen in new}


def known_schemas(layout: LakeLayout, source: str) -> dict[tuple[str, str], str]:
    """The schemas that a source announced, by table and schema id, each with the earliest sequence known of it."""
    rows = rows_of(layout.path("schemas"), ["_source", "_table", "schema_id", "_sequence"])
    known: dict[tuple[str, str], str] = {}
    for row in rows:
        if row["_source"] == source:
            name, order = (row["_table"], row["schema_id"]), row.get("_sequence") or ""
            known[name] = min(order, known.get(name, order))
    return known


def new_schemas(tally: Tally, known: Mapping[tuple[str, str], str]) -> list[SeenSchema]:
    """What a batch announced that is not known, or known from a later change alone."""
    return [seen for name, seen in tally.schemas.items() if name not in known or seen.sequence < known[name]]


def schema_rows(source: str, seen: Iterable[SeenSchema]) -> pa.Table:
    """Rows of `schemas` for what a source announced."""
    now = dt.datetime.now(dt.UTC)
    rows = [
        {
            "_source": source, "_table": seen_schema.table, "schema_id": seen_schema.schema_id,
            "columns": json.dumps(dict(seen_schema.columns)), "keys": list(seen_schema.keys), "_ingest_time": now,
            "_sequence": seen_schema.sequence, "defaulted": list(seen_schema.defaulted),
        }
        for seen_schema in seen
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, SCHEMAS)


def read_changes(spark: SparkSession, layout: LakeLayout, **options: str) -> DataFrame:
    """Follow `changes` as a stream of rows, once each; `options` are Delta's."""
    # Compaction rewrites files without changing data; only a retention delete removes rows, old ones that every job has read.
    stream = spark.readStream.format("delta").option("skipChangeCommits", "true")
    return stream.options(**options).load(layout.path("changes"))


def create_tables(layout: LakeLayout) -> None:
    """Create the tables that landing writes where they are missing."""
    create(
        layout.path("changes"), CHANGES, stats=STATS_COLUMNS["changes"], partition_by=["_ingest_date"],
        properties={"delta.checkpointInterval": "30"},
    )  # fmt: skip
    create_rejects(layout.root)
    create(layout.path("ignored"), IGNORED, stats=STATS_COLUMNS["ignored"])
    create(layout.path("schemas"), SCHEMAS, stats=STATS_COLUMNS["schemas"])
    create(layout.path(TABLE), REGISTERED_SCHEMAS, stats=STATS_COLUMNS[TABLE])

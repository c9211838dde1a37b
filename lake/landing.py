"""From stream records to `changes`, `rejects` and counted ignores: each record in exactly one of them (I6)."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.accumulators import Accumulator, AccumulatorParam
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf

from lake.decoding import DECODED_DDL, DECODED_HEADERS, Tally, decoded
from lake.layout import CHANGES, IGNORED, RAW_COLUMNS, SCHEMAS, STATS_COLUMNS, LakeLayout
from lake.rejects import create_rejects, rejected
from lake.storage import append, append_rows, create, rows_of

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    from schemas.changes import SeenSchema
    from transforms.context import DecodeContext

type Transaction = Callable[[str], Mapping[str, str]]
"""From a table's name to the Delta writer options that make this batch's append to it happen once."""


class _Tallies(AccumulatorParam[dict[str, Tally]]):
    """Tallies by attempt, so that a task of an attempt given up never counts for the next one."""

    def zero(self, value: dict[str, Tally]) -> dict[str, Tally]:
        return {}

    def addInPlace(self, value1: dict[str, Tally], value2: dict[str, Tally]) -> dict[str, Tally]:  # noqa: N802
        for attempt, tally in value2.items():
            value1.setdefault(attempt, Tally()).add(tally)
        return value1


class Landing:
    """Lands batches of one source.

    A batch landed again, whole or after a kill at any point, leaves the tables as landing it once: every append carries
    the batch's transaction. The counts come from the tasks of the very action that wrote.
    """

    def __init__(self, spark: SparkSession, layout: LakeLayout, source: str, context: DecodeContext) -> None:
        """Create the tables that are missing and read which schemas are known."""
        self._layout = layout
        self._source = source
        self._context = context
        self._tallies: Accumulator[dict[str, Tally]] = spark.sparkContext.accumulator({}, _Tallies())
        create_tables(layout)
        seen = rows_of(layout.path("schemas"), ["_source", "_table", "schema_id"])
        self._known = {(row["_table"], row["schema_id"]) for row in seen if row["_source"] == source}

    def land(self, frame: DataFrame, transaction: Transaction) -> Tally:
        """Write one batch of RECORD_COLUMNS; the records are read once unless there are rejects."""
        attempt = uuid.uuid4().hex
        told = self._decoded(frame, attempt).withColumns(self._stamps())
        changes = told.filter(F.col("_op").isNotNull()).select(*CHANGES.names)
        append(changes, self._layout.path("changes"), transaction("changes"))
        tally = self._take(attempt)
        if not tally.records:
            # Delta skipped the append: a run of this batch that was killed had made it. Count again for the rest.
            told.write.format("noop").mode("overwrite").save()
            tally = self._take(attempt)
        if tally.rejected:
            rejects = told.filter(F.col("condition").isNotNull())
            append(rejected(rejects, "decode"), self._layout.path("rejects"), transaction("rejects"))
        self._note_ignored(tally, transaction)
        self._note_schemas(tally, transaction)
        return tally

    def _decoded(self, frame: DataFrame, attempt: str) -> DataFrame:
        context, tallies = self._context, self._tallies

        def decode_batch(*columns: pa.Array[Any]) -> pa.Array[Any]:
            answer, tally = decoded(columns, context)
            tallies.add({attempt: tally})
            return answer

        # Spark reads the kind of function off the annotations, and knows the class only.
        decode_batch.__annotations__ = {"columns": pa.Array, "return": pa.Array}
        told = F.exists("headers", lambda h: h["key"].isin(*DECODED_HEADERS))
        raw = [F.col(c) for c in RAW_COLUMNS[:5]]
        make: Any = arrow_udf  # its published types know no function of any number of columns
        udf = make(decode_batch, DECODED_DDL).asNondeterministic()  # keeps Spark from evaluating it twice
        # As text: Spark asks a batch's size at every row, and an array column of NULLs takes longer for it at each.
        answer = udf(*raw, F.to_json(F.when(told, F.col("headers")))).alias("decoded")
        return frame.select(*RAW_COLUMNS, answer).select(*RAW_COLUMNS, "decoded.*")

    def _stamps(self) -> dict[str, Column]:
        now = dt.datetime.now(dt.UTC)
        return {
            "_source": F.lit(self._source),
            "_ingest_time": F.lit(now),
            "_ingest_date": F.lit(now.date()),
        }

    def _take(self, attempt: str) -> Tally:
        tallies = self._tallies.value
        tally = tallies.pop(attempt, Tally())
        tallies.clear()
        return tally

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
        new = [seen for name, seen in tally.schemas.items() if name not in self._known]
        if new:
            append_rows(self._layout.path("schemas"), schema_rows(self._source, new), transaction("schemas"))
            self._known |= tally.schemas.keys()


def schema_rows(source: str, seen: Iterable[SeenSchema]) -> pa.Table:
    """Rows of `schemas` for what a source announced."""
    now = dt.datetime.now(dt.UTC)
    rows = [
        {
            "_source": source, "_table": each.table, "schema_id": each.schema_id,
            "columns": json.dumps(dict(each.columns)), "keys": list(each.keys), "_ingest_time": now,
        }
        for each in seen
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, SCHEMAS)


def create_tables(layout: LakeLayout) -> None:
    """Create the tables that landing writes where they are missing."""
    create(
        layout.path("changes"),
        CHANGES,
        stats=STATS_COLUMNS["changes"],
        partition_by=["_ingest_date"],
        properties={"delta.checkpointInterval": "30"},
    )
    create_rejects(layout.root)
    create(layout.path("ignored"), IGNORED, stats=STATS_COLUMNS["ignored"])
    create(layout.path("schemas"), SCHEMAS, stats=STATS_COLUMNS["schemas"])

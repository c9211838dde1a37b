"""Records, cells and texts that can never be processed, appended by the job that finds them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lake.layout import STATS_COLUMNS, LakeLayout
from lake.storage import append_rows, create
from lake.table_schemas import REJECTS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def append_rejects(
    lake: str, rows: Sequence[Mapping[str, Any]], *, stage: str, transaction: Mapping[str, str] | None = None
) -> None:
    """Append rejects of a stage in one commit, without Spark.

    A row may have `table`, `timestamp_ms` and any column of REJECTS. The same transaction again appends nothing (I7). Without
    one the same rows are added again: a stage that replays is counted by its own report, and `rejects` has each try.
    """
    create_rejects(lake)
    now = dt.datetime.now(dt.UTC)
    stamped = [_shaped(row) | {"stage": stage, "_ingest_time": now, "_ingest_date": now.date()} for row in rows]
    append_rows(LakeLayout(lake).path("rejects"), pa.Table.from_pylist(stamped, REJECTS), transaction)


def create_rejects(lake: str) -> None:
    """Create the table where it is missing; the job that comes first does it."""
    path = LakeLayout(lake).path("rejects")
    create(path, REJECTS, stats=STATS_COLUMNS["rejects"], partition_by=["_ingest_date"])


def rejected(frame: DataFrame, stage: str) -> DataFrame:
    """Shape rows of a Spark stage as `rejects` keeps them; columns that the stage does not have are NULL."""
    from pyspark.sql import functions as F
    from pyspark.sql.pandas.types import from_arrow_schema

    present = set(frame.columns)
    columns = {name: F.col(name) if name in present else F.lit(None) for name in REJECTS.names} | {
        "stage": F.lit(stage)
    }
    return frame.select(*(columns[f.name].cast(f.dataType).alias(f.name) for f in from_arrow_schema(REJECTS)))


def _shaped(row: Mapping[str, Any]) -> dict[str, Any]:
    shaped = {name: row.get(name) for name in REJECTS.names}
    shaped["_table"] = row.get("_table") or row.get("table")
    if row.get("timestamp_ms") is not None:
        shaped["timestamp"] = dt.datetime.fromtimestamp(row["timestamp_ms"] / 1000, dt.UTC)
    return shaped

"""merge_tables' Spark part: any cut and order of `changes` leaves the same typed rows in a current table."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from chispa import assert_df_equality
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lake.landing.batch import Landing
from lake.layout import RESERVED, LakeLayout
from lake.tables.batch_stats import TableCounts
from lake.tables.merge import TableMerger, quoted
from schemas.records import Record
from schemas.tables import TableConfig
from tests.history import TABLE, ModelTable, as_record
from tests.lake_fixtures import frame, transaction
from transforms.context import DecodeContext, TableContext
from transforms.values import exact_json

TEXTS = {"id": "int", "a": "text", "body": "text"}


class Merged:
    """A lake with one source table, whose changes are landed once and merged as a test likes."""

    def __init__(
        self,
        spark: SparkSession,
        folder: Path,
        table: str,
        columns: Mapping[str, str],
        *,
        deletion_vectors: bool = False,
    ) -> None:
        self.spark, self.table, self.merges, self.deletion_vectors = spark, table, 0, deletion_vectors
        self.layout = LakeLayout(str(folder / "lake"))
        self.declare(columns)

    def declare(self, columns: Mapping[str, str]) -> None:
        """A driver that starts with these columns declared."""
        config = TableConfig(table=self.table, keys=("id",), columns=dict(columns))
        self.context = DecodeContext("debezium", {self.table: TableContext(self.table, ("id",), config.columns)})
        contexts = {"kb": self.context}
        self.merger = TableMerger(self.layout, [config], contexts, deletion_vectors=self.deletion_vectors)

    def land(self, records: Sequence[Record]) -> None:
        landing = Landing(self.layout, "kb", self.context)
        landing.land(frame(self.spark, records), transaction("land", self.merges))

    def merge(self, positions: Sequence[str] | None = None, *, again: bool = False) -> TableCounts:
        """Merge the changes at these positions, or all; `again` as after a kill, as the batch that it was."""
        changes = self.spark.read.format("delta").load(self.layout.path("changes"))
        batch = changes if positions is None else changes.filter(F.col("position").isin(*positions))
        self.merges += not again
        return self.merger.merge(batch, transaction("merge", self.merges)).get(self.table, TableCounts())

    def rows(self) -> DataFrame:
        """The business columns of the current table."""
        return self.spark.read.format("delta").load(self.layout.table(self.table)).drop(*RESERVED)

    def equals(self, rows: Sequence[tuple[Any, ...]], schema: str) -> None:
        wanted, merged = self.spark.createDataFrame(rows, schema), self.rows()
        assert sorted(merged.columns) == sorted(wanted.columns)
        plain = [f"c{at}" for at in range(len(wanted.columns))]  # what compares frames takes no odd name
        merged = merged.select(*map(quoted, wanted.columns)).toDF(*plain)
        assert_df_equality(merged, wanted.toDF(*plain), ignore_row_order=True, ignore_nullable=True)


def record(table: str, op: str, lsn: int, row: Mapping[str, Any], **source: object) -> Record:
    """A Debezium record without its schema, at a position of the source's log."""
    owner, _, name = table.partition(".")
    origin = {"schema": owner, "table": name, "sequence": f'["{lsn}","{lsn}"]', "ts_us": lsn, **source}
    value = {"op": op, "before": row if op == "d" else None, "after": row if op != "d" else None, "source": origin}
    return Record("t", "0", str(lsn), None, exact_json.dumps(value).encode())


@pytest.mark.parametrize("deletion_vectors", [False, True])
def test_order_in_which_halves_of_a_key_change_come_does_not_matter(
    spark: SparkSession,
    tmp_path: Path,
    deletion_vectors: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    table = ModelTable()
    table.insert(1, "x")
    table.move(1, 2)
    lake = Merged(spark, tmp_path, TABLE, TEXTS, deletion_vectors=deletion_vectors)
    records = [as_record(change) for change in table.changes]
    lake.land(records)
    for record in records[::-1]:
        lake.merge([record.position])
    lake.equals([(2, "x", "body x")], "id int, a string, body string")


@pytest.mark.parametrize("deletion_vectors", [False, True])
def test_a_truncate_removes_what_is_older_whichever_comes_first(
    spark: SparkSession,
    tmp_path: Path,
    deletion_vectors: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    table = ModelTable()
    table.insert(1, "older")
    table.truncate()
    table.insert(2, "newer")
    older, truncate, newer = (as_record(change) for change in table.changes)
    lake = Merged(spark, tmp_path, TABLE, TEXTS, deletion_vectors=deletion_vectors)
    lake.land([older, truncate, newer])
    lake.merge([newer.position, truncate.position])
    lake.merge([older.position])
    lake.equals([(2, "newer", "body newer")], "id int, a string, body string")


def test_a_wider_type_retypes_every_row_and_loses_no_digit(spark: SparkSession, tmp_path: Path) -> None:
    lake = Merged(spark, tmp_path, "inv.t", {"id": "int", "n": "int", "at": "date"})
    lake.land([
        record("inv.t", "c", 1, {"id": 1, "n": 7, "at": "2024-02-29"}),
        record("inv.t", "c", 2, {"id": 2, "n": None, "at": None}),
    ])  # fmt: skip
    lake.merge()
    day = dt.date(2024, 2, 29)
    lake.equals([(1, 7, day), (2, None, None)], "id int, n int, at date")
    lake.declare({"id": "int", "n": "decimal(20,2)", "at": "date", "more": "text"})
    lake.land([record("inv.t", "u", 3, {"id": 2, "n": "12345678901.25", "at": None, "more": "x"})])
    lake.merge(["3"])
    lake.equals(
        [(1, Decimal("7.00"), day, None), (2, Decimal("12345678901.25"), None, "x")],
        "id int, n decimal(20,2), at date, more string",
    )
    assert lake.merge().written == 0
    assert lake.rows().count() == 2


def test_a_value_that_does_not_fit_is_rejected_and_its_row_stands(spark: SparkSession, tmp_path: Path) -> None:
    lake = Merged(spark, tmp_path, "inv.t", {"id": "int", "n": "int", "at": "timestamp"})
    lake.land([
        record("inv.t", "c", 1, {"id": 1, "n": "no number", "at": 0}),
        record("inv.t", "c", 2, {"id": 2, "n": 2, "at": 2**63 - 1}),  # decoding already says what this is not
        record("inv.t", "u", 3, {"id": 1, "n": 3, "at": 2**63 - 1}),
    ])  # fmt: skip
    assert lake.merge(["1", "2"]).rejects == 1
    began = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - a column without a zone
    lake.equals([(1, None, began), (2, 2, None)], "id int, n int, at timestamp_ntz")
    pending = spark.read.format("delta").load(lake.layout.table("inv.t")).select("id", "_pending")
    assert {row["id"]: row["_pending"] for row in pending.collect()} == {1: None, 2: ["at"]}
    rejects = spark.read.format("delta").load(lake.layout.path("rejects"))
    rejected = {(r["stage"], r["condition"], r["column"], r["_key"], r["value"] is None) for r in rejects.collect()}
    assert rejected == {
        ("merge", "CAST_FAILED", "n", '{"id":1}', True),
        ("decode", "BAD_VALUE", "at", '{"id":2}', False),
        ("decode", "BAD_VALUE", "at", '{"id":1}', False),
    }
    assert lake.merge(again=True).rejects == 0
    lake.equals([(1, 3, began), (2, 2, None)], "id int, n int, at timestamp_ntz")


def test_moments_of_any_year_are_read_by_spark_and_by_deltalake(spark: SparkSession, tmp_path: Path) -> None:
    """risingwave#16895: a timestamptz of the year 1, which INT96 cannot tell deltalake."""
    lake = Merged(spark, tmp_path, "inv.t", {"id": "int", "at": "timestamptz", "day": "date", "hour": "timestamp"})
    dates = {1: "0001-01-01", 2: "1582-10-14", 3: "9999-12-31", 4: "-0043-03-15", 5: "infinity"}
    times = {number: {"at": f"{day}T00:00:00Z", "day": day, "hour": f"{day}T00:00:00"} for number, day in dates.items()}
    lake.land([record("inv.t", "c", number, {"id": number} | row) for number, row in times.items()])
    assert lake.merge().rejects == 6
    days = [dt.date(1, 1, 1), dt.date(1582, 10, 14), dt.date(9999, 12, 31), None, None]
    hours = [dt.datetime.combine(day, dt.time()) if day else None for day in days]
    rows = lake.rows().orderBy("id").select(F.unix_micros("at").alias("at"), "day", "hour").collect()
    assert [(row["day"], row["hour"]) for row in rows] == list(zip(days, hours, strict=True))
    merged = DeltaTable(lake.layout.table("inv.t")).to_pyarrow_table().sort_by("id")
    assert merged["day"].to_pylist() == days
    assert merged["hour"].to_pylist() == hours
    moments = [hour.replace(tzinfo=dt.UTC) if hour else None for hour in hours]
    assert merged["at"].to_pylist() == moments
    epoch, micro = dt.datetime(1970, 1, 1, tzinfo=dt.UTC), dt.timedelta(microseconds=1)
    assert [row["at"] for row in rows] == [moment and (moment - epoch) // micro for moment in moments]


def test_tables_and_columns_may_have_any_name(spark: SparkSession, tmp_path: Path) -> None:
    odd = ["Some Col", "a.b", "x`y", "ключ", "a,b;{c}=()"]
    lake = Merged(spark, tmp_path, "inv.Mixed Case/..", {"id": "int", **dict.fromkeys(odd, "text")})
    row = {"id": 1} | {name: f"value of {name}" for name in odd}
    lake.land([record("inv.Mixed Case/..", "c", 1, row), record("inv.Mixed Case/..", "u", 2, row | {"a.b": "newer"})])
    lake.merge(["2"])
    lake.merge(["1"])
    newer = row | {"a.b": "newer"}
    schema = ", ".join(["id int", *(f"{quoted(name)} string" for name in odd)])
    lake.equals([tuple(newer[name] for name in ["id", *odd])], schema)

"""Current tables with deletion vectors: merges leave files in place, and a purge takes what they marked out of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from delta import DeltaTable
from pyspark.sql import SparkSession

from lake.maintenance import purge
from tests.integration.test_lake_tables import Merged, record

TABLE = "inv.t"
COLUMNS = {"id": "int", "a": "text"}
SCHEMA = "id int, a string"


def row(number: int, a: str) -> dict[str, Any]:
    return {"id": number, "a": a}


def files(lake: Merged) -> set[str]:
    return set(lake.rows().inputFiles())


def filled(spark: SparkSession, folder: Path, *, deletion_vectors: bool) -> Merged:
    lake = Merged(spark, folder, TABLE, COLUMNS, deletion_vectors=deletion_vectors)
    lake.land([record(TABLE, "c", n, row(n, f"first {n}")) for n in range(1, 6)])
    lake.merge()
    return lake


def change(lake: Merged) -> None:
    lake.land([
        record(TABLE, "u", 11, row(1, "newer")), record(TABLE, "d", 12, row(2, "first 2")), record(TABLE, "c", 13, row(6, "new")),
    ])  # fmt: skip
    lake.merge(["11", "12", "13"])


CHANGED = [(1, "newer"), (3, "first 3"), (4, "first 4"), (5, "first 5"), (6, "new")]


def test_a_merge_marks_rows_and_leaves_their_file(spark: SparkSession, tmp_path: Path) -> None:
    lake = filled(spark, tmp_path, deletion_vectors=True)
    first = files(lake)
    change(lake)
    lake.equals(CHANGED, SCHEMA)
    assert first < files(lake)
    assert lake.merge().written == 0
    lake.equals(CHANGED, SCHEMA)


def test_no_key_stands_in_the_log(spark: SparkSession, tmp_path: Path) -> None:
    lake = filled(spark, tmp_path, deletion_vectors=True)
    change(lake)
    log = Path(lake.layout.table(TABLE), "_delta_log")
    assert not [path for path in log.glob("*.json") if 'id\\":' in path.read_text()]


def test_a_purge_takes_deleted_rows_out_of_the_files(spark: SparkSession, tmp_path: Path) -> None:
    lake = filled(spark, tmp_path, deletion_vectors=True)
    change(lake)
    assert spark.read.parquet(*files(lake)).count() == 7
    purge(spark, lake.layout.table(TABLE))
    lake.equals(CHANGED, SCHEMA)
    assert sorted(row["a"] for row in spark.read.parquet(*files(lake)).collect()) == sorted(a for _, a in CHANGED)


def test_a_table_that_is_there_is_switched_at_a_start(spark: SparkSession, tmp_path: Path) -> None:
    lake = filled(spark, tmp_path, deletion_vectors=False)
    for wanted in (True, False):
        lake.deletion_vectors = wanted
        lake.declare(COLUMNS)
        lake.merger.settle(spark)
        version = DeltaTable.forPath(spark, lake.layout.table(TABLE)).history(1).select("version").first()
        lake.merger.settle(spark)
        assert DeltaTable.forPath(spark, lake.layout.table(TABLE)).history(1).select("version").first() == version
        first = files(lake)
        if wanted:
            change(lake)
            assert first < files(lake)
        else:
            lake.land([record(TABLE, "u", 21, row(1, "newest"))])
            lake.merge(["21"])
            assert not first < files(lake)
    lake.equals([(1, "newest"), *CHANGED[1:]], SCHEMA)

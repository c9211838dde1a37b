"""Columns that change at the source, through landing, merge and load: the same in any order, and back once they are accepted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from glue_jobs.config.pipeline import table_context
from lake.layout import RESERVED
from lake.tables.merge import TableMerger
from local_stack.servers.aws import Ministack
from schemas.errors import StoppedError
from schemas.records import Record
from schemas.tables import TableConfig
from tests.drifting import EVOLVED, FROZEN, TABLE, history, renamed_history
from tests.lake_fixtures import transaction
from tests.warehouse_fixtures import OWNER, Loaded
from transforms.context import DecodeContext
from warehouse.loader import WarehouseLoader


class Drifting(Loaded):
    """A lake and a warehouse that take one table's batches as the jobs do."""

    def configure(self, **more: Any) -> None:
        """Drivers that start with this configuration."""
        table = TableConfig.model_validate({"table": TABLE, "keys": ["id"], **more})
        self.context = DecodeContext("debezium", {TABLE: table_context(table)})
        self.merger = TableMerger(self.layout, [table], {"desk": self.context})
        self.merger.settle(self.spark)
        self.loader = WarehouseLoader(self.layout, [table], {"desk": self.context}, self.config, OWNER)

    def take(self, records: Sequence[Record], *, load: bool = True) -> None:
        """Land, merge and load a batch."""
        self.land(records)
        batch = self.batch([record.position for record in records])
        self.merger.merge(batch, transaction("merge", self.loads))
        if load:
            self.load([record.position for record in records])

    @property
    def merged(self) -> dict[str, dict[str, Any]]:
        """The rows of the current table, by key."""
        rows = self.spark.read.format("delta").load(self.layout.table(TABLE)).collect()
        return {row["_key"]: {n: v for n, v in row.asDict().items() if n not in RESERVED} for row in rows}


@pytest.mark.covers("postgresql", "debezium", "drift", "documented")
def test_left_out_columns_stay_out_in_any_order_and_come_back(
    spark: SparkSession, tmp_path: Path, warehouse_dsn: str, aws: Ministack
) -> None:
    stores = Drifting(spark, tmp_path, warehouse_dsn, aws, TABLE)
    stores.configure(drift="ignore")
    records = history().records
    later, earlier = records[5:3:-1], [*records[:4], *records[6:]]
    for batch in (later, earlier):
        stores.take(batch)
    assert stores.merged == FROZEN
    assert [list(row) for row in stores.rows()] == [["id", "n", "big", "code", "old"]] * 3
    stores.configure()
    assert stores.merged == EVOLVED, "without a new change, and without the source"
    stores.load([records[0].position])
    assert {f'{{"id":{row["id"]}}}': row for row in stores.rows()} == EVOLVED


def test_rejected_values_come_back_when_their_columns_are_accepted(
    spark: SparkSession, tmp_path: Path, warehouse_dsn: str, aws: Ministack
) -> None:
    stores = Drifting(spark, tmp_path, warehouse_dsn, aws, TABLE)
    stores.configure(drift="reject")
    records = history().records
    stores.take(records)
    assert {f'{{"id":{row["id"]}}}': row for row in stores.rows()} == stores.merged == FROZEN
    rejects = list(stores.rejects())
    assert sorted((row["stage"], row["condition"], row["column"], row["_key"]) for row in rejects) == [
        (stage, condition, column, f'{{"id":{key}}}')
        for stage in ("merge", "warehouse")
        for condition, column, key in (
            ("CAST_FAILED", "code", 2), ("CAST_FAILED", "code", 3), ("CAST_FAILED", "n", 2),
            ("SCHEMA_DRIFT", "late", 1), ("SCHEMA_DRIFT", "late", 2),
        )
    ]  # fmt: skip
    assert not [row for row in rejects if "second" in row["message"] or "A-8" in row["message"]]
    stores.configure(drift="stop")
    for job in (stores.load, lambda: stores.merger.merge(stores.batch(), transaction("merge", 9))):
        with pytest.raises(StoppedError, match="late was added"):
            job()
    stores.configure()
    stores.load([records[0].position])
    assert {f'{{"id":{row["id"]}}}': row for row in stores.rows()} == stores.merged == EVOLVED


def test_a_lost_key_lands_nothing_until_its_new_name_is_configured(
    spark: SparkSession, tmp_path: Path, warehouse_dsn: str, aws: Ministack
) -> None:
    stores = Drifting(spark, tmp_path, warehouse_dsn, aws, TABLE)
    stores.configure()
    records = renamed_history().records
    with pytest.raises(StoppedError, match=r"has no column id any more"):
        stores.land(records)
    assert stores.batch().count() == 0
    assert list(stores.rejects()) == []
    stores.configure(renamed={"item": "id", "text": "body"})
    for batch in (records[:1:-1], records[:2]):
        stores.take(batch, load=False)
    stores.load()
    expected = [{"id": 2, "body": "two, edited"}, {"id": 3, "body": "three"}]
    assert [stores.merged[key] for key in ('{"id":2}', '{"id":3}')] == stores.rows() == expected

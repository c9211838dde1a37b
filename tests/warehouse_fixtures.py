"""What the warehouse's tests share: a lake whose changes are loaded as a test likes, and what readers then see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lake.landing.batch import Landing
from lake.layout import LakeLayout
from lake.tables.batch_stats import TableCounts
from local_stack.servers.aws import Ministack
from schemas.ownership import Owner
from schemas.records import Record
from schemas.tables import TableConfig
from tests.lake_fixtures import frame, transaction
from transforms.context import DecodeContext, TableContext
from warehouse.config import RedshiftConfig
from warehouse.loader import WarehouseLoader

BUCKET = "ragstream-warehouse"
OWNER = Owner("desk", "lake-of-desk")


def warehouse_config(dsn: str, aws: Ministack, **more: Any) -> dict[str, Any]:
    """A `warehouse` section for a database of the stand-in."""
    target, access = conninfo_to_dict(dsn), aws.endpoint
    client = aws.client("s3")
    if BUCKET not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": access["region"]})
    return {
        "type": "redshift", "host": target["host"], "port": int(str(target["port"])), "database": target["dbname"],
        "user": target["user"], "password": target["password"], "ssl": False, "schema": "desk",
        "staging": f"s3://{BUCKET}/staged", "region": access["region"], "endpoint_url": access["endpoint_url"],
        "access_key": access["access_key"], "secret_key": access["secret_key"],
    } | more  # fmt: skip


class Loaded:
    """A lake with one source table, whose changes are landed once and loaded as a test likes."""

    def __init__(self, spark: SparkSession, folder: Path, dsn: str, aws: Ministack, table: str) -> None:
        self.spark, self.table, self.dsn, self.aws = spark, table, dsn, aws
        self.layout = LakeLayout(str(folder / "lake"))
        self.config = RedshiftConfig.model_validate(warehouse_config(dsn, aws))
        self.loads = 0

    def declare(
        self, columns: Mapping[str, str], keys: Sequence[str] = ("id",), owner: Owner = OWNER
    ) -> WarehouseLoader:
        """A driver that starts with these columns declared."""
        table = TableConfig(table=self.table, keys=tuple(keys), columns=dict(columns))
        self.context = DecodeContext("debezium", {self.table: TableContext(self.table, tuple(keys), table.columns)})
        self.loader = WarehouseLoader(self.layout, [table], {"desk": self.context}, self.config, owner)
        return self.loader

    def land(self, records: Sequence[Record]) -> None:
        self.loads += 1
        Landing(self.layout, "desk", self.context).land(frame(self.spark, records), transaction("land", self.loads))

    def batch(self, positions: Sequence[str] | None = None) -> DataFrame:
        """Changes at these positions, or all."""
        changes = self.spark.read.format("delta").load(self.layout.path("changes"))
        return changes if positions is None else changes.filter(F.col("position").isin(*positions))

    def load(self, positions: Sequence[str] | None = None, *, again: bool = False) -> TableCounts:
        """Load changes; `again` as after a kill, as the batch that it was."""
        self.loads += not again
        counts = self.loader.load(self.batch(positions), f"query/{self.loads}", transaction("load", self.loads))
        return counts.get(self.table, TableCounts())

    @property
    def name(self) -> str:
        return self.table.partition(".")[2].lower()

    def rows(self) -> list[dict[str, Any]]:
        """What a reader of the warehouse sees, in the order of its first column."""
        with psycopg.connect(self.dsn) as connection, connection.cursor() as cursor:
            cursor.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier("desk", self.name)))
            names = [column.name for column in cursor.description or ()]
            return sorted((dict(zip(names, row, strict=True)) for row in cursor), key=lambda row: str(row[names[0]]))

    def staged(self) -> list[str]:
        """What stands in the staging bucket."""
        objects = self.aws.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return [entry["Key"] for entry in objects]

    def rejects(self) -> Iterator[Any]:
        """What the lake has rejected."""
        yield from self.spark.read.format("delta").load(self.layout.path("rejects")).collect()

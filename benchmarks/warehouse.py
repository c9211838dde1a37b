"""Loads into Redshift against a bare COPY of the same rows, in changes a second: `make bench-warehouse`.

`changes` as landed go through `warehouse.loader` into an empty table (read states, fold, stage, COPY, compare, insert), then
a second change of every row replaces it. The bare COPY loads files of the same rows that were staged before. All three take
turns, so that a noisy machine slows all; ratios are medians over the rounds. It runs on the stand-in (PostgreSQL behind a proxy
that turns Parquet into text), whose COPY is slow and whose commit is cheap: it tells our own cost, not Redshift's.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from benchmarks.land import BODY, event
from benchmarks.servers import servers
from glue_jobs.runtime.spark.session import open_session
from lake.identity import lake_id
from lake.landing.batch import Landing
from lake.layout import LakeLayout
from local_stack.stack import Stack
from schemas.ownership import Owner
from schemas.tables import TableConfig
from transforms.context import DecodeContext, TableContext
from warehouse.clients import open_client
from warehouse.config import RedshiftConfig
from warehouse.loader import WarehouseLoader
from warehouse.sql import Copies
from warehouse.staging import staging

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TABLE = TableConfig(
    table="public.tickets",
    keys=("id",),
    columns={"id": "bigint", "subject": "text", "body": "text", "status": "text", "customer_id": "bigint"},
)
CONTEXT = DecodeContext("debezium", {TABLE.table: TableContext(TABLE.table, TABLE.keys, TABLE.columns)})
BUCKET = "ragstream-bench"
_RECORD = "stream string, partition string, position string, key binary, value binary, headers array<struct<key:string,\
value:binary>>, timestamp timestamp"


def configuration(stack: Stack, schema: str) -> RedshiftConfig:
    """One schema of the stand-in."""
    access, endpoint = stack.aws.endpoint, stack.service("redshift").endpoint
    return RedshiftConfig.model_validate(
        {name: endpoint[name] for name in ("host", "port", "database", "user", "password")}
        | {name: access[name] for name in ("endpoint_url", "region", "access_key", "secret_key")}
        | {"type": "redshift", "ssl": False, "schema": schema, "staging": f"s3://{BUCKET}/staged"}
    )


def records(spark: SparkSession, changes: int, *, updates: bool) -> DataFrame:
    """Records of an INSERT of each row, or of an UPDATE of each."""
    moment, first = dt.datetime(2026, 1, 1, tzinfo=dt.UTC), changes * updates
    headers: list[Any] = []
    rows = [("t", "0", str(first + n), None, _record(n, first), headers, moment) for n in range(1, changes + 1)]
    return spark.createDataFrame(rows, _RECORD)


def _record(number: int, first: int) -> bytes:
    change = json.loads(event(number))
    place = first + number
    change["source"] |= {"sequence": f'["{place}","{place}"]', "lsn": place}
    change["op"], change["after"]["status"] = ("u", "closed") if first else ("c", "open")
    return json.dumps(change).encode()


def bare_copy(config: RedshiftConfig, changes: int) -> float:
    """Seconds of a COPY of as many rows of the same columns, staged before."""
    numbers = pa.array(range(changes), pa.int64())
    texts: Any = [[f"order {n}" for n in range(changes)], [BODY] * changes, ["open"] * changes]
    columns: list[pa.Array[Any]] = [numbers, *(pa.array(column, pa.string()) for column in texts), numbers]
    writer = staging(config, "bare")
    manifest = writer.rows(pa.table(columns, ["id", "subject", "body", "status", "customer_id"]))
    types = "id BIGINT, subject VARCHAR(65535), body VARCHAR(65535), status VARCHAR(65535), customer_id BIGINT"
    client = open_client(config)
    client.run([f"CREATE TABLE IF NOT EXISTS {config.schema_name}.bare ({types})"])
    began = time.perf_counter()
    client.run([Copies(config.iam_role).into(f"{config.schema_name}.bare", manifest)])
    took = time.perf_counter() - began
    client.close()
    return took


def rounds(stack: Stack, folder: Path, changes: int, times: int) -> Iterator[tuple[float, float, float]]:
    """Seconds of first load, second load and bare COPY of each round, after a warm-up round."""
    spark = open_session("bench-warehouse", checkpoint=str(folder / "checkpoints"), cores=2)
    stack.aws.client("s3").create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": stack.aws.endpoint["region"]}
    )
    for number in range(times + 1):
        layout, config = LakeLayout(str(folder / f"lake{number}")), configuration(stack, f"round{number}")
        landing = Landing(layout, "bench", CONTEXT)
        loader = WarehouseLoader(layout, [TABLE], {"bench": CONTEXT}, config, Owner("bench", lake_id(layout.root)))
        seconds = []
        for turn in range(2):
            landing.land(
                records(spark, changes, updates=bool(turn)),
                lambda table, turn=turn: {"txnAppId": f"land:{table}", "txnVersion": str(turn)},  # type: ignore[misc]
            )
            landed = spark.read.format("delta").load(layout.path("changes")).filter(f"_op = '{'cu'[turn]}'")
            began = time.perf_counter()
            counts = loader.load(
                landed,
                f"bench/{turn}",
                lambda table, turn=turn: {"txnAppId": f"load:{table}", "txnVersion": str(turn)},  # type: ignore[misc]
            )
            seconds.append(time.perf_counter() - began)
            if counts[TABLE.table].written != changes:
                raise AssertionError(f"{counts} of {changes}")
        bare = bare_copy(config, changes)
        if number:
            yield seconds[0], seconds[1], bare
    spark.stop()


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.warehouse")
    parser.add_argument("--changes", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with servers(["redshift"]) as stack, tempfile.TemporaryDirectory() as folder:
        took = list(rounds(stack, Path(folder), options.changes, options.rounds))
    figures = {
        "first_load_changes_per_second": round(options.changes / statistics.median(first for first, _, _ in took)),
        "replacing_changes_per_second": round(options.changes / statistics.median(second for _, second, _ in took)),
        "bare_copy_rows_per_second": round(options.changes / statistics.median(bare for _, _, bare in took)),
        "first_load_ratio": round(statistics.median(bare / first for first, _, bare in took), 3),
        "replacing_ratio": round(statistics.median(bare / second for _, second, bare in took), 3),
    }
    versions = {name: importlib.metadata.version(name) for name in ("pyspark", "redshift_connector", "pyarrow")}
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "load_before": round(load, 2)}
    line = {"benchmark": "warehouse", "store": "stand-in", "changes": options.changes, "figures": figures}
    print(json.dumps(line | machine | {"versions": versions}))


if __name__ == "__main__":
    main()

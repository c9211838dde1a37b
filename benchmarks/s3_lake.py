"""Landing on S3 when the log is long against when it is new: `make bench-s3-lake`.

A landing here is what it asks of S3: the worker's Parquet file, then the driver's commit, through a proxy that answers
each request `--delay-ms` later. The first and the last `--window` landings are measured so; those between, which only make
the log long, go without the delay. Files are compacted by Spark whenever 128 have come, and the log is trimmed then, with
`--retention-seconds` in the place of a week.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import json
import os
import pickle
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa

from glue_jobs.runtime.spark.session import open_session
from lake import maintenance
from lake.landing.batch import create_tables
from lake.landing.decoding import decoded
from lake.landing.landed_files import LandPartition, append
from lake.layout import RAW_COLUMNS, LakeLayout
from lake.storage import standing_table
from lake.table_schemas import CHANGES
from local_stack.faults.s3 import S3Proxy
from local_stack.servers.aws import REGION, Ministack
from transforms.context import DecodeContext, TableContext

BUCKET = "bench-lake"
CONTEXT = DecodeContext("debezium", {"public.tickets": TableContext("public.tickets", ("id",))})
ROWS = 20


def batch(number: int) -> pa.RecordBatch:
    """Make the records of one landing, as its worker gets them."""
    rows = [_record(number * ROWS + row) for row in range(ROWS)]
    fields = [*((name, CHANGES.field(name).type) for name in RAW_COLUMNS), ("no_headers", pa.bool_())]
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, kind) for column, (_, kind) in zip(columns, fields, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, [name for name, _ in fields])


def _record(number: int) -> tuple[Any, ...]:
    source = {"connector": "postgresql", "schema": "public", "table": "tickets", "ts_us": number, "lsn": number}
    source |= {"sequence": f'["{number}","{number}"]', "snapshot": "false"}
    value = {"before": None, "after": {"id": number, "subject": "late order"}, "source": source, "op": "c"}
    raw: tuple[Any, ...] = (b'{"id": %d}' % number, json.dumps(value).encode(), [], dt.datetime.now(dt.UTC), True)
    return "bench", "0", str(number), *raw


def land(layout: LakeLayout, number: int) -> None:
    """Land one batch."""
    stage = LandPartition(layout.root, "bench", CONTEXT, decoded, dt.datetime.now(dt.UTC))
    (answer,) = stage([batch(number)])
    outcome = pickle.loads(answer["outcome"][0].as_py())  # noqa: S301 - made one line above
    append(layout.path("changes"), outcome.changes, {"txnAppId": "bench", "txnVersion": str(number)})


def memory_mb() -> int:
    """Resident memory of this process and its JVM."""
    driver = psutil.Process()
    return round(sum(p.memory_info().rss for p in (driver, *driver.children(recursive=True))) / 2**20)


class Bench:
    """Lands, and compacts and trims as the job does."""

    def __init__(self, proxy: S3Proxy, options: argparse.Namespace) -> None:
        """Create the lake, and a session that compacts it."""
        self._proxy = proxy
        self._options = options
        self._layout = LakeLayout(f"s3a://{BUCKET}/lake")
        self._path = self._layout.path("changes")
        create_tables(self._layout)
        self._spark = open_session("bench-s3-lake", checkpoint=f"s3a://{BUCKET}/checkpoint", cores=2)
        kept = f"'interval {options.retention_seconds} seconds'"
        properties = f"'delta.deletedFileRetentionDuration' = {kept}, 'delta.logRetentionDuration' = {kept}"
        self._spark.sql(f"ALTER TABLE delta.`{self._path}` SET TBLPROPERTIES ({properties})")

    def measured(self, numbers: range) -> dict[str, Any]:
        """Land with the delay; returns the durations."""
        self._proxy.delay = self._options.delay_ms / 1000
        before, times = self._proxy.requests.total(), []
        for number in numbers:
            started = time.perf_counter()
            land(self._layout, number)
            times.append(1000 * (time.perf_counter() - started))
        asked = self._proxy.requests.total() - before
        self._proxy.delay = 0.0
        cuts = statistics.quantiles(times, n=10)
        return {
            "p50_ms": round(statistics.median(times), 1), "p90_ms": round(cuts[8], 1),
            "requests": round(asked / len(times), 1), "driver_mb": memory_mb(),
        }  # fmt: skip

    def between(self, numbers: range) -> None:
        """Land without the delay, with the job's maintenance."""
        for number in numbers:
            land(self._layout, number)
            if number % maintenance.COMPACT_AT_FILES == 0:
                maintenance.optimize(self._spark, self._path)
                maintenance.trim_log(self._path)

    def left(self, s3: Any) -> dict[str, int]:
        """Count the objects on S3."""
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="lake/changes/_delta_log/")
        log = sum(page["KeyCount"] for page in pages)
        table = standing_table(self._path)
        return {"versions": table.version(), "log_objects": log, "files_of_table": len(table.file_uris())}

    def close(self) -> None:
        """End the session."""
        self._spark.stop()


def phases(proxy: S3Proxy, server: Ministack, options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the figures of the first and the last landings, and the objects on S3 after each."""
    bench = Bench(proxy, options)
    window, count = options.window, options.commits
    yield "first", bench.measured(range(window))
    bench.between(range(window, count - window))
    yield "last", bench.measured(range(count - window, count))
    yield "left", bench.left(server.client("s3"))
    bench.close()


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.s3_lake")
    parser.add_argument("--commits", type=int, default=20_000)
    parser.add_argument("--window", type=int, default=1_000)
    parser.add_argument("--delay-ms", type=float, default=25.0)
    parser.add_argument("--retention-seconds", type=int, default=60)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, Ministack(Path(folder) / "aws") as server:
        location = {"LocationConstraint": REGION}
        server.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration=location)
        with S3Proxy(server.endpoint["endpoint_url"]) as proxy:
            os.environ.update(server.variables | {"AWS_ENDPOINT_URL": proxy.endpoint_url, "AWS_ALLOW_HTTP": "true"})
            figures: dict[str, Any] = dict(phases(proxy, server, options))
    figures["ratio"] = round(figures["last"]["p50_ms"] / figures["first"]["p50_ms"], 3)
    versions = {name: importlib.metadata.version(name) for name in ("pyspark", "delta-spark", "deltalake", "pyarrow")}
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "load_before": round(load, 2)}
    print(json.dumps({"benchmark": "s3-lake", **vars(options), "figures": figures, **machine, "versions": versions}))


if __name__ == "__main__":
    main()

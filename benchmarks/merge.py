"""`changes` into a current table, against a plain foreachBatch and as the table grows: `make bench-merge`.

    python -m benchmarks.merge [--changes 10000] [--rows 1000000,10000000] [--rounds 3] [--deletion-vectors]

Tables of so many rows take batches of changes, two in ten of new rows; of the others 95 in a hundred concern the newest hundredth
of the rows, and one in eight deletes its row. `lake.tables.merge` merges them. The plain way, in a table with the same rows, is
that of AWS's samples: `from_json`, the last change of a key by a window, MERGE. Both read the same landed records, in turns,
after a batch that warms up. The session has the settings of one on Glue, on two cores.

Ends in one line of JSON: medians of the seconds of a batch.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from benchmarks.land import BODY, CONTEXT, event
from benchmarks.peers.plain_merge import merge_into, newest_of
from benchmarks.stores import machine
from glue_jobs.config.values import use_this_python_for_workers
from glue_jobs.runtime.spark.session import settings
from lake.landing.batch import Landing
from lake.layout import LakeLayout
from lake.tables.merge import TableMerger
from schemas.records import Record
from schemas.tables import TableConfig
from tests.lake_fixtures import frame, transaction

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

TABLE = "public.tickets"
COLUMNS = {"id": "long", "subject": "string", "body": "string", "status": "string", "customer_id": "long"}
FILE_ROWS = 1_000_000


@dataclass
class Tables:
    """The two tables of one size."""

    spark: SparkSession
    folder: Path
    rows: int
    deletion_vectors: bool = False

    @property
    def layout(self) -> LakeLayout:
        """Where ours is."""
        return LakeLayout(str(self.folder / f"lake-{self.rows}"))

    @property
    def plain(self) -> str:
        """Where the plain one is."""
        return str(self.folder / f"plain-{self.rows}")

    def land(self, events: list[bytes], batch: int) -> DataFrame:
        """Land events in a partition of their own, and return their rows of `changes`."""
        records = [Record("t", str(batch), f"{n:09}", b"{}", value, (), None) for n, value in enumerate(events)]
        Landing(self.layout, "bench", CONTEXT).land(frame(self.spark, records), transaction("bench", batch))
        return self.spark.read.format("delta").load(self.layout.path("changes")).filter(f"partition = '{batch}'")

    def merge(self, landed: DataFrame, batch: int) -> None:
        """Merge a batch as `merge_tables` does."""
        table = TableConfig(table=TABLE, keys=("id",))
        merger = TableMerger(self.layout, [table], {"bench": CONTEXT}, deletion_vectors=self.deletion_vectors)
        merger.merge(landed, transaction("bench", batch))

    def fill(self) -> None:
        """Rows like one that was merged, in files of a table that is compacted."""
        self.merge(self.land([event(0)], 0), 0)
        path = self.layout.table(TABLE)
        first = self.spark.read.format("delta").load(path)
        row = F.broadcast(first.drop("id", "_key", "body"))
        rows = self.spark.range(1, self.rows, numPartitions=max(1, self.rows // FILE_ROWS)).crossJoin(row)
        rows = rows.withColumn("_key", F.format_string('{"id":%d}', "id"))
        rows = rows.withColumn("body", F.concat(F.lit(BODY), F.md5(F.col("id").cast("string"))))
        typed = rows.select(*(F.col(f.name).cast(f.dataType).alias(f.name) for f in first.schema))
        typed.write.format("delta").mode("append").save(path)
        self.current().write.format("delta").save(self.plain)

    def current(self) -> DataFrame:
        """The rows of ours, in the plain one's types."""
        stored = self.spark.read.format("delta").load(self.layout.table(TABLE))
        return stored.select(*(F.col(name).cast(kind).alias(name) for name, kind in COLUMNS.items()))

    def changes(self, count: int, batch: int) -> list[bytes]:
        """Events of so many changes, in order; the next batch's come after them."""
        r, events = random.Random(batch), list[bytes]()
        for number in range(count):
            (op,) = r.choices("cud", [20, 70, 10])
            oldest = self.rows - self.rows // 100 if r.random() < 0.95 else 1
            row = self.rows * (batch + 1) + number if op == "c" else r.randrange(oldest, self.rows)
            lsn = self.rows * 100 + count * batch + number
            made = json.loads(event(row))
            made["op"], made["source"] = op, made["source"] | {"lsn": lsn, "sequence": f'["{lsn}","{lsn}"]'}
            if op == "d":
                made["before"], made["after"] = made["after"], None
            events.append(json.dumps(made).encode())
        return events


def measured(tables: Tables, changes: int, rounds: int) -> dict[str, float]:
    """The median seconds of a batch in each way, after one that warms up; at the end both tables have the same rows."""
    spark = tables.spark
    tables.fill()
    took: dict[str, list[float]] = {"ours": [], "plain": []}
    for batch in range(1, rounds + 2):
        landed = tables.land(tables.changes(changes, batch), batch).persist()
        landed.count()
        began = time.perf_counter()
        tables.merge(landed, batch)
        merged = time.perf_counter()
        merge_into(DeltaTable.forPath(spark, tables.plain), newest_of(landed, COLUMNS, "position"), COLUMNS)
        for way, seconds in {"ours": merged - began, "plain": time.perf_counter() - merged}.items():
            print(f"{tables.rows:,} rows, batch {batch}, {way}: {seconds:.1f} s", file=sys.stderr, flush=True)
            took[way].append(seconds)
        landed.unpersist()
    ours, others = (frame.groupBy().agg(F.count("*"), F.sum(F.xxhash64(*COLUMNS).cast("decimal(38,0)"))).first()
                    for frame in (tables.current(), spark.read.format("delta").load(tables.plain)))  # fmt: skip
    if ours != others:
        raise AssertionError(f"the tables differ: {ours}, {others}")
    return {way: statistics.median(seconds[1:]) for way, seconds in took.items()}


def opened(folder: str) -> SparkSession:
    """A session with the settings of one on Glue, in a JVM of its own: a local one's are for small tables."""
    use_this_python_for_workers()
    chosen = settings(f"{folder}/checkpoints", local=False) | {
        "spark.master": "local[2]", "spark.driver.memory": "6g", "spark.sql.shuffle.partitions": "2", "spark.ui.enabled": "false",
    }  # fmt: skip
    builder = SparkSession.builder.appName("bench-merge")
    for name, value in chosen.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.merge")
    parser.add_argument("--changes", type=int, default=10_000)
    parser.add_argument("--rows", default="1000000,10000000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--deletion-vectors", action="store_true", help="ours has them: `lake.deletion_vectors`")
    options = parser.parse_args()
    environment, figures = machine(), dict[str, dict[str, float]]()
    with tempfile.TemporaryDirectory() as folder:
        spark = opened(folder)
        for rows in map(int, options.rows.split(",")):
            tables = Tables(spark, Path(folder), rows, options.deletion_vectors)
            seconds = measured(tables, options.changes, options.rounds)
            figures[f"{rows:,} rows"] = {way: round(median, 2) for way, median in seconds.items()}
        spark.stop()
    print(json.dumps({"benchmark": "merge", **vars(options), "figures": figures, **environment}))


if __name__ == "__main__":
    main()

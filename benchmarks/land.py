"""Landing against reading alone, in events a second: `make bench-land`.

The same Kafka topic, filled with Debezium's records of about 900 bytes, is read in one batch by Spark's own source: once
into nothing (`noop`), once through `lake.landing.batch` into `changes`. Both take turns, so that a noisy machine slows both; the
ratio is the median over the rounds.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import Producer
from pyspark.sql import functions as F

from glue_jobs.runtime.spark.session import open_session
from lake.landing.batch import Landing
from lake.layout import LakeLayout
from local_stack.servers.kafka import Broker
from transforms.context import DecodeContext, TableContext

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TOPIC = "bench.public.tickets"
PARTITIONS = 2
BODY = "the order was shipped late and the customer wants a refund now please help " * 6
CONTEXT = DecodeContext("debezium", {"public.tickets": TableContext("public.tickets", ("id",))})


def event(number: int) -> bytes:
    """Make the record of one INSERT."""
    source = {
        "version": "3.5.0.Final", "connector": "postgresql", "name": "bench", "ts_ms": 1_800_000_000_000 + number,
        "snapshot": "false", "db": "shop", "sequence": f'["{number}","{number}"]', "ts_us": 1_800_000_000_000_000,
        "schema": "public", "table": "tickets", "txId": number, "lsn": number, "xmin": None,
    }  # fmt: skip
    row = {"id": number, "subject": f"order {number}", "body": BODY, "status": "open", "customer_id": number % 97}
    return json.dumps({"before": None, "after": row, "source": source, "op": "c", "ts_ms": 1_800_000_000_000}).encode()


def fill(servers: str, events: int) -> None:
    """Produce the records, each keyed as Debezium does."""
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 50, "queue.buffering.max.messages": 1_000_000})
    for number in range(events):
        key = json.dumps({"id": number}).encode()
        producer.produce(TOPIC, event(number), key, number % PARTITIONS, headers=[("__debezium.context.taskId", b"0")])
        producer.poll(0)
    producer.flush()


def records(spark: SparkSession, servers: str) -> DataFrame:
    """Read the whole topic as a source's RECORD_COLUMNS."""
    reader = spark.read.format("kafka").option("kafka.bootstrap.servers", servers).option("subscribe", TOPIC)
    return reader.option("includeHeaders", "true").load().select(
        F.col("topic").alias("stream"), F.col("partition").cast("string"), F.col("offset").cast("string").alias("position"),
        "key", "value", "headers", "timestamp",
    )  # fmt: skip


def rounds(servers: str, folder: Path, events: int, times: int) -> Iterator[tuple[float, float]]:
    """Yield landing and reading alone of each round, after a warm-up round."""
    spark = open_session("bench-land", checkpoint=str(folder / "checkpoints"), cores=PARTITIONS)
    landing = Landing(LakeLayout(str(folder / "lake")), "bench", CONTEXT)
    for number in range(times + 1):
        started = time.perf_counter()
        records(spark, servers).write.format("noop").mode("overwrite").save()
        read = time.perf_counter()
        tally = landing.land(
            records(spark, servers),
            lambda table, number=number: {"txnAppId": f"bench:{table}", "txnVersion": str(number)},  # type: ignore[misc]
        )
        landed = time.perf_counter()
        if tally.landed.total() != events:
            raise AssertionError(f"{tally.landed.total()} landed of {events}")
        if number:
            yield events / (landed - read), events / (read - started)
    spark.stop()


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.land")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, Broker(Path(folder) / "kafka") as broker:
        broker.create_topic(TOPIC, PARTITIONS)
        servers = str(broker.endpoint["bootstrap_servers"])
        fill(servers, options.events)
        pairs = list(rounds(servers, Path(folder), options.events, options.rounds))
    figures = {
        "landed_events_per_second": round(statistics.median(landed for landed, _ in pairs)),
        "read_events_per_second": round(statistics.median(read for _, read in pairs)),
        "ratio": round(statistics.median(landed / read for landed, read in pairs), 3),
    }
    versions = {name: importlib.metadata.version(name) for name in ("pyspark", "delta-spark", "pyarrow")}
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "load_before": round(load, 2)}
    print(
        json.dumps({"benchmark": "land", "events": options.events, "figures": figures, **machine, "versions": versions})
    )


if __name__ == "__main__":
    main()

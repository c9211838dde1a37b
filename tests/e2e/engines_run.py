"""`make test-engines`: PostgreSQL and MariaDB change at once; processes die, servers stop, streams reshard; nothing is lost.

A table of PostgreSQL goes by Debezium and Kafka, another by the DMS stand-in and Kinesis, one of MariaDB by Debezium and Kafka,
into one pipeline. All end as they are, and each record that was produced is landed, rejected or ignored once.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import click
import pytest
from confluent_kafka import Consumer, TopicPartition

from local_stack.service import Service
from local_stack.stack import Stack
from schemas.errors import PipelineError
from schemas.tables import TableConfig
from tests.e2e.binlog import KEEP_ALIVE_MS
from tests.e2e.debezium import Captured
from tests.e2e.dms import DmsTask
from tests.e2e.load import Load
from tests.e2e.long_run import JOBS, killed
from tests.e2e.pipeline import Driver, Pipeline
from tests.e2e.rows import Kinds, Rows
from tests.e2e.transactions import Transactions, await_shown, in_binlog_server, in_postgres
from tests.e2e.under_load import Scene, configured, split_and_merge, watched
from tests.servers import create_stream
from tests.waiting import NothingWrong, eventually

VICTIMS = ("connect", "mariadb", "driver", "postgres", "reader", "dms", "kafka", "worker", "vectors")
"""Who is killed, in turn. The local Kinesis is not: it forgets the last second, which Kinesis never does."""
SERVERS = ("kinesis", "postgres", "mariadb", "kafka", "connect", "vectors", "instant_model")
"""Who is stopped, once. The local Kinesis is the first and writes to its disk no more then: each time it writes all it has."""
RESHARDS = 2
SHARDS = 8
SHARES = (0.05, 0.45, 0.5)
"""Of the rate: of DMS's table, and of those of PostgreSQL and MariaDB by Debezium. The local Kinesis gets slower with what a
shard has: at 40/s it froze after half an hour, with 66,000 records."""
AWAY_SECONDS = 5.0
END_SECONDS = 600.0
"""How long what was committed may take to be everywhere, on a machine that is slower than the rate."""


def schedule(kills: int) -> list[tuple[float, str, str]]:
    """What happens when, as a share of the run, evenly: kills, and between them each server's stop and the reshards."""
    others = [("stop", name) for name in SERVERS]
    for number in range(RESHARDS):
        others.insert((2 * number + 1) * len(SERVERS) // (2 * RESHARDS) + number, ("reshard", str(number + 1)))
    both = ([("kill", name) for name in islice(cycle(VICTIMS), kills)], others)
    return sorted(((at + 0.5) / len(events), *event) for events in both for at, event in enumerate(events))


class Engines:
    """A table in each database, changed by a load of its own."""

    def __init__(self, pipeline: Pipeline, rates: Mapping[Transactions, float], seed: str) -> None:
        """Take the tables, and how often a second each is changed."""
        self.pipeline, self.tables = pipeline, {table.table: table for table in rates}
        self.loads = {table.table: Load(table, rate, f"{seed} {table.table}") for table, rate in rates.items()}

    def start(self) -> None:
        for load in self.loads.values():
            load.start()

    def halt(self) -> None:
        for load in self.loads.values():
            load.halt()

    def end(self) -> None:
        for load in self.loads.values():
            load.end()

    @property
    def committed(self) -> int:
        """Changes of the loads that were committed, in both engines together."""
        return sum(table.committed for table in self.tables.values())

    def acknowledged_until(self, us: int) -> list[tuple[str, str]]:
        """Nothing: a real log's sequences are its own. `await_shown` holds stores to what was committed."""
        return []

    def wrong(self, dsn: str) -> list[str]:
        """Where a table is not what its load has made of it, then where store, lake and tables differ from it."""
        configs = {name: self.pipeline.table_config(name) for name in self.tables}
        lines = [line for name, table in self.tables.items() for line in table.wrong(self.loads[name], configs[name])]
        return lines or self.pipeline.wrong(self.source)

    def source(self, config: TableConfig) -> tuple[Rows, Kinds]:
        return self.tables[config.table].rows(config)


@dataclass
class Run:
    """What can happen to it."""

    servers: Mapping[str, Any]
    scene: Scene[Engines]
    driver: Driver
    dms: DmsTask
    stream: str
    captured: Sequence[Captured]
    caught_up: list[float] = field(default_factory=list)

    def kill(self, victim: str) -> None:
        """SIGKILL, and a start where nobody else sees to it."""
        if victim in self.servers:
            self.servers[victim].kill()
            self.servers[victim].start()
        elif victim == "dms":
            self.dms.kill()
            self.dms.start()
        else:
            self.driver = killed(self.scene, self.driver, victim)

    def stop(self, name: str) -> None:
        """A server ends as its operator ends it, and is away for a while. The model is frozen: it counts what it is sent."""
        server: Service = self.servers[name]
        leave, come_back = (server.pause, server.resume) if name == "instant_model" else (server.stop, server.start)
        if name == "kinesis":
            self.dms.stop()
            self._await_persisted(time.time())
            self.servers[name].persist_interval = "24h"
        leave()
        time.sleep(AWAY_SECONDS)
        come_back()
        if name == "kinesis":
            self.dms.start()

    def reshard(self, _: str) -> None:
        """A shard is split, two are merged; each topic has two partitions more."""
        kafka = self.servers["kafka"]
        split_and_merge(self.servers["kinesis"].client("kinesis"), self.stream, between=self.catch_up)
        for topic in self.topics:
            kafka.add_partitions(topic, kafka.topics()[topic] + 2)

    @property
    def topics(self) -> list[str]:
        return [topic for captured in self.captured for topic in captured.topics]

    def catch_up(self) -> None:
        """Wait until what both engines commit now is in the store; a connector that has failed is started again."""
        began = time.monotonic()
        await_shown(list(self.scene.load.tables.values()), self.scene.dsn, END_SECONDS, self.restart_failed)
        self.caught_up.append(time.monotonic() - began)

    def restart_failed(self) -> None:
        """As the connectors' operator does: one whose database was away when it started stays failed (docs/limits.md)."""
        connect = self.servers["connect"]
        with suppress(PipelineError, OSError):
            for captured in self.captured:
                if "FAILED" in connect.states(captured.prefix):
                    connect.restart_failed(captured.prefix)

    def produced(self) -> Counter[tuple[str, str]]:
        """Records in the topics and in the stream, by partition and shard."""
        counted: Counter[tuple[str, str]] = Counter()
        kafka = self.servers["kafka"]
        consumer = Consumer({"bootstrap.servers": kafka.endpoint["bootstrap_servers"], "group.id": "produced"})
        for topic in self.topics:
            for partition in range(kafka.topics()[topic]):
                _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition))
                counted[topic, str(partition)] = end
        consumer.close()
        client = self.servers["kinesis"].client("kinesis")
        for shard in client.list_shards(StreamName=self.stream)["Shards"]:
            name = shard["ShardId"]
            page = {"NextShardIterator": client.get_shard_iterator(
                StreamName=self.stream, ShardId=name, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]}  # fmt: skip
            while iterator := page.get("NextShardIterator"):
                page = client.get_records(ShardIterator=iterator)
                counted[self.stream, name] += len(page["Records"])
                if not page["Records"] and not page["MillisBehindLatest"]:
                    break
        return counted

    def _await_persisted(self, since: float) -> None:
        """What the local Kinesis has is on its disk; it writes each second."""
        persisted: Path = self.servers["kinesis"].data / "kinesis-data.json"
        eventually(lambda: persisted.stat().st_mtime > since + 1)


@pytest.mark.timeout(0)
def test_two_engines_through_kills_stops_and_reshards_end_as_they_are(
    request: pytest.FixtureRequest,
    source_dsn: str,
    mariadb_database: str,
    vectors_dsn: str,
    local_stack: Stack,
    tmp_path: Path,
) -> None:
    seconds, rate, kills = (request.config.getoption(f"--{name}") for name in ("minutes", "rate", "kills"))
    seconds *= 60
    servers = {name: request.getfixturevalue(name) for name in SERVERS}
    kafka, kinesis, connect = servers["kafka"], servers["kinesis"], servers["connect"]
    tables = [
        in_postgres(source_dsn),
        in_postgres(source_dsn, "sales"),
        in_binlog_server(servers["mariadb"], mariadb_database),
    ]
    names, mark = [table.table for table in tables], str(local_stack.directory)
    captured = [
        Captured(source_dsn, names[1:2], kafka, connect),
        Captured(servers["mariadb"].dsn(""), names[2:], kafka, connect),
    ]
    stream = create_stream(kinesis, SHARDS)
    dms = DmsTask(source_dsn, names[:1], stream, kinesis.endpoint, "--primary-key", log=tmp_path / "dms.log", mark=mark)
    shards = {"type": "kinesis", "envelope": "dms", "stream": stream, "fetch_interval_ms": 1000, **kinesis.endpoint}
    sources = dict(zip(("dms", "postgres", "mariadb"), [shards, *(c.source for c in captured)], strict=True))
    document = configured(
        tmp_path,
        [{"name": name} | source for name, source in sources.items()],
        [{"table": table, "source": source} for table, source in zip(names, sources, strict=True)],
        servers["instant_model"],
        vectors_dsn,
    )
    pipeline = Pipeline(tmp_path / "p", document, mark=mark)
    engines = Engines(
        pipeline, {table: rate * share for table, share in zip(tables, SHARES, strict=True)}, tmp_path.name
    )
    try:
        with watched(pipeline, engines, servers["instant_model"], vectors_dsn) as scene:
            dms.start()
            captured[0].put(producer_override_metadata_max_age_ms="2000")
            captured[1].put(connect_keep_alive_interval_ms=KEEP_ALIVE_MS, producer_override_metadata_max_age_ms="2000")
            run = Run(servers, scene, scene.start("--jobs", JOBS), dms, stream, captured)
            run.catch_up()
            began, before = time.monotonic(), engines.committed
            events = schedule(kills)
            for at, what, whom in [*events, (1.0, "", "")]:
                time.sleep(max(0.0, began + at * seconds - time.monotonic()))
                if what:
                    getattr(run, what)(whom)
                    run.catch_up()
                    click.echo(
                        f"{time.monotonic() - began:6.0f} s  {what} {whom}: caught up after {run.caught_up[-1]:.1f} s"
                    )
            took, made = time.monotonic() - began, engines.committed - before
            scene.finish(kills=len(events), seconds=END_SECONDS)
            eventually(NothingWrong(lambda: unaccounted(run)), 120, run.driver.process)
            assert run.driver.stop() == 0
        report(run, took, made, kills)
    finally:
        dms.kill()
        for connector in captured:
            connect.delete_connector(connector.prefix)
        kinesis.client("kinesis").delete_stream(StreamName=stream)
    assert set(pipeline.landed().values()) == {1}
    assert pipeline.delta("rejects", ["stage"]) == []


def unaccounted(run: Run) -> list[str]:
    """Partitions and shards whose records are not landed, rejected or ignored, each once."""
    produced, accounted = run.produced(), run.scene.pipeline.accounted()
    return [f"{place}: {produced[place]} produced, {accounted[place]} accounted for"
            for place in produced | accounted if produced[place] != accounted[place]]  # fmt: skip


def report(run: Run, took: float, made: int, kills: int) -> None:
    """Say what it was: changes made in that time, and all records, those of the start too."""
    pipeline, engines = run.scene.pipeline, run.scene.load
    landed, rejected = (len(pipeline.delta(name, ["stream"])) for name in ("changes", "rejects"))
    ignored = sum(row["records"] for row in pipeline.delta("ignored", ["records"]))
    click.echo(
        f"{took:.0f} s, {made / took:.0f} changes/s, {engines.committed} in all; {kills} kills, {len(SERVERS)} stops, "
        f"{RESHARDS} reshards of all streams; {sum(run.produced().values())} records produced = {landed} landed + "
        f"{rejected} rejected + {ignored} ignored; caught up after {statistics.median(run.caught_up):.1f} s (median), "
        f"{max(run.caught_up):.1f} s (at most); {run.scene.repeated()} texts sent twice"
    )

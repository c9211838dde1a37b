"""MariaDB through Debezium and Kafka: the lake, its tables and a store equal the source.

Also over the log's files, when the Connect worker is killed, when the server is killed and stopped, and with incremental and
blocking snapshots while rows change. Rows that the binary log does not have prove that a snapshot brought them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from local_stack.models.service import ModelService
from local_stack.servers.connect import Connect, request_json
from local_stack.servers.kafka import Broker
from local_stack.servers.mariadb import MariaDB
from local_stack.stack import Stack
from sources.capture.debezium import DebeziumCaptureConfig
from sources.capture.rendering import render
from tests.e2e.mariadb import KINDS, MariaSource, document, snapshot
from tests.e2e.pipeline import Pipeline, running
from tests.servers import unique
from tests.waiting import eventually

SMALL_CHUNKS = {"incremental.snapshot.chunk.size": "4"}
"""So that many windows lie between the changes."""


class Captured:
    """The connector of a source."""

    def __init__(self, source: MariaSource, broker: Broker, connect: Connect) -> None:
        self.source, self.broker, self.connect, self.prefix = source, broker, connect, unique("maria")
        self.topics = [f"{self.prefix}.{table.replace(' ', '_')}" for table in source.tables]
        for topic in self.topics:
            broker.create_topic(topic, 3, max_message_bytes="33554432")

    def put(self, **members: Any) -> None:
        told = {
            "type": "debezium", "database": "mariadb", "dsn": self.source.server.dsn(""), "topic_prefix": self.prefix,
            "connector": self.prefix, "replication_factor": 1, **self.broker.endpoint, **members,
        }  # fmt: skip
        capture = DebeziumCaptureConfig.model_validate(told)
        rendered = render(capture, self.prefix, self.source.tables, self.topics, reveal=True)
        self.connect.put_connector(self.prefix, rendered["connector"]["config"] | SMALL_CHUNKS)

    def runs(self) -> bool:
        """Whether it runs; a task that ended because the database was away is started again, as an operator does."""
        states = self.connect.states(self.prefix)
        if "FAILED" in states:
            path = f"/connectors/{self.prefix}/restart?includeTasks=true&onlyFailed=true"
            request_json(self.connect.url, "POST", path)
        return len(states) > 1 and set(states) == {"RUNNING"}

    def is_indexed(self, pipeline: Pipeline, number: int) -> bool:
        """Whether a row's document is in the store."""
        return self.runs() and f'{{"id":"{number}"}}' in pipeline.documents(self.source.tables[0], KINDS["things"])

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Changes go on until the block ends."""
        ended = threading.Event()

        def change() -> None:
            while not ended.wait(0.05):
                self.source.some_changes()

        changes = threading.Thread(target=change, daemon=True)
        changes.start()
        try:
            yield
        finally:
            ended.set()
            changes.join()


@pytest.fixture
def captured(mariadb: MariaDB, mariadb_database: str, kafka: Broker, connect: Connect) -> Iterator[Captured]:
    captured = Captured(MariaSource(mariadb, mariadb_database), kafka, connect)
    yield captured
    connect.delete_connector(captured.prefix)


@pytest.mark.covers("mariadb", "debezium", ("type", "snapshot", "delete", "key change"), "live")
@pytest.mark.covers("mariadb", "debezium", ("truncate", "large value"), "live")
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_stores_equal_mariadb_whatever_is_killed_and_whichever_snapshot_runs(
    captured: Captured, vectors_dsn: str, instant_model: ModelService, local_stack: Stack, tmp_path: Path
) -> None:
    source, server = captured.source, captured.source.server
    signals = f"{source.database}.signals"
    source.before_the_capture()
    stream = {"type": "kafka", "envelope": "debezium", "topics": captured.topics, **captured.broker.endpoint}
    configuration = document(stream, source.database, vectors_dsn, instant_model.endpoint["endpoint_url"], tmp_path)
    pipeline = Pipeline(tmp_path / "p", configuration, mark=str(local_stack.directory))
    with running(pipeline):
        driver = pipeline.start()
        captured.put(signal_table=signals)
        source.edges()
        pipeline.await_equal(source.source)
        with captured.changing():
            captured.connect.kill()
            source.execute("FLUSH LOGS")
            captured.connect.start()
        eventually(captured.runs, 60)
        server.kill()
        server.start()
        for kind, number in (("incremental", 50), ("blocking", 60)):
            source.insert(number, f"told by a snapshot alone: {kind}", logged=False)
            eventually(captured.runs, 60)
            with captured.changing():
                source.signal(kind)
                eventually(partial(captured.is_indexed, pipeline, number), 60)
        topic = f"{captured.prefix}.signals"
        captured.broker.create_topic(topic)
        captured.put(signal_topic=topic)
        source.insert(70, "told by a snapshot that writes nothing", logged=False)
        with captured.changing():
            producer = captured.broker.producer()
            value = f'{{"type": "execute-snapshot", "data": {snapshot(source.database, "incremental")}}}'
            producer.produce(topic, value, captured.prefix)
            assert producer.flush(10) == 0
            eventually(partial(captured.is_indexed, pipeline, 70), 60)
        server.restart()
        source.insert(80, "told after the server was stopped")
        eventually(partial(captured.is_indexed, pipeline, 80), 60)
        pipeline.await_equal(source.source)
        assert driver.stop() == 0
    assert pipeline.delta("rejects", ["condition"]) == []

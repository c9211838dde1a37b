"""The two ways in: a database captured by Debezium into Kafka, and by the DMS stand-in into Kinesis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local_stack.servers.aws import Ministack
from local_stack.servers.connect import Connect
from local_stack.servers.kafka import Broker
from local_stack.stack import Stack
from sources.capture.debezium import DebeziumCaptureConfig
from sources.capture.rendering import render
from tests.e2e.database import Database
from tests.e2e.dms import DmsTask
from tests.servers import unique


@pytest.fixture
def database(source_dsn: str) -> Database:
    return Database(source_dsn)


@pytest.fixture
def kafka_source(database: Database, kafka: Broker, connect: Connect) -> Iterator[dict[str, Any]]:
    prefix = unique("e2e")
    topics = [f"{prefix}.public.everything", f"{prefix}.public.Mixed_Case"]
    wanted = {"connector": prefix, "topic_prefix": prefix, "topic_partitions": 3, "replication_factor": 1}
    capture = DebeziumCaptureConfig.model_validate({"type": "debezium", "dsn": database.dsn} | wanted)
    for topic in topics:
        kafka.create_topic(topic, 3, **{"max.message.bytes": "33554432"})
    rendered = render(capture, prefix, ["public.everything", "public.Mixed Case"], topics, reveal=True)
    connect.put_connector(prefix, rendered["connector"]["config"])
    yield {
        "type": "kafka",
        "envelope": "debezium",
        "bootstrap_servers": kafka.endpoint["bootstrap_servers"],
        "topics": topics,
    }
    connect.delete_connector(prefix)


@pytest.fixture
def kinesis_source(
    database: Database, aws: Ministack, new_stream: Callable[..., str], local_stack: Stack, tmp_path: Path
) -> Iterator[dict[str, Any]]:
    stream, access = new_stream(2), aws.endpoint
    tables = ("public.everything", "public.Mixed Case")
    task = DmsTask(database.dsn, tables, stream, access, log=tmp_path / "dms.log", mark=str(local_stack.directory))
    task.start()
    yield {"type": "kinesis", "envelope": "dms", "stream": stream, **access}
    task.stop()

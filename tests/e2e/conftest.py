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
from tests.e2e.database import Database
from tests.e2e.debezium import Captured
from tests.e2e.dms import DmsTask


@pytest.fixture
def database(source_dsn: str) -> Database:
    return Database(source_dsn)


@pytest.fixture
def kafka_source(database: Database, kafka: Broker, connect: Connect) -> Iterator[dict[str, Any]]:
    captured = Captured(database.dsn, ["public.everything", "public.Mixed Case"], kafka, connect)
    captured.put()
    yield captured.source
    connect.delete_connector(captured.prefix)


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

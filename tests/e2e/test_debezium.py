"""PostgreSQL through Debezium and Kafka: lake, tables and store equal the source's rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from local_stack.connect import Connect
from local_stack.kafka import Broker
from local_stack.model_service import ModelService
from local_stack.stack import Stack
from local_stack.testing import unique
from schemas.tables import TableConfig
from sources.capture import render
from sources.capture_debezium import DebeziumCaptureConfig
from tests.e2e.pipeline import VIEW, Pipeline, counters, embedding, running
from tests.e2e.rows import source_rows

LARGE = "a large body that is stored out of line, in many words. " * 18_000  # 1 MB
CREATE = """
CREATE TABLE {t} (
    id bigint PRIMARY KEY, status text, body text, price numeric(12,2), anything numeric, ratio double precision,
    seen timestamptz, local timestamp, born date, ok boolean, tags text[], data jsonb, raw bytea, u uuid);
CREATE TABLE {mixed} ("Id" int PRIMARY KEY, "Some Col" text, body text);
"""
ROW = """INSERT INTO {t} VALUES (%s, %s, %s, 12.30, '1.10', 'NaN', '2026-02-03 04:05:06.789+01', '2026-02-03 04:05:06',
         '2024-02-29', true, ARRAY['a', 'b,c', NULL, 'ü☃'], '{{"n": 1.10, "é": [null, 12345678901234567890]}}',
         '\\x00ff', '6f9619ff-8b86-d011-b42d-00c04fc964ff')"""


class Database:
    """The source, and a random workload on it."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.t, self.mixed = "public.everything", 'public."Mixed Case"'
        self.execute(CREATE)

    def execute(self, statement: str, *values: object) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statement.format(t=self.t, mixed=self.mixed).encode(), values or None)

    def insert(self, number: int, body: str | None) -> None:
        self.execute(ROW, number, "new", body)

    def edges(self) -> None:
        """What breaks pipelines."""
        self.insert(1, LARGE)
        self.insert(2, None)
        self.insert(3, "ünïcödé ☃ 😀 'quotes' \"double\" \\ {braces}\n\ttab")
        self.execute("INSERT INTO {t} (id, ratio, anything) VALUES (4, 'Infinity', 'NaN'), (5, '-Infinity', 1e300)")
        self.execute("UPDATE {t} SET status = 'held' WHERE id = 1")  # the body is left out of the log
        self.execute("UPDATE {t} SET id = 1001 WHERE id = 1")  # and so it is here
        self.execute("UPDATE {t} SET status = NULL, price = NULL WHERE id = 3")
        self.execute("INSERT INTO {mixed} VALUES (1, 'x', 'mixed one'), (2, NULL, 'mixed two')")
        self.execute('UPDATE {mixed} SET "Some Col" = \'ö\' WHERE "Id" = 2')
        self.execute("TRUNCATE {mixed}")
        self.execute("INSERT INTO {mixed} VALUES (2, 'after', 'mixed after'), (3, 'after', 'mixed three')")
        with psycopg.connect(self.dsn) as connection:  # one transaction
            connection.execute(ROW.format(t=self.t).encode(), (6, "new", "six"))
            connection.execute(f"DELETE FROM {self.t} WHERE id = 6".encode())
            connection.execute(ROW.format(t=self.t).encode(), (6, "again", "six again"))

    def source(self, table: TableConfig) -> Any:
        return source_rows(self.dsn, table)


def document(source: dict[str, Any], dsn: str, model_url: str, folder: Path) -> dict[str, Any]:
    everything = {"template": "{body}", "metadata": ["status", "price"], "chunk": {"max_tokens": 200}}
    return {
        "name": "e2e",
        "source": source,
        "tables": [
            {"table": "public.everything", "keys": ["id"], "document": everything},
            {
                "table": "public.Mixed Case",
                "keys": ["Id"],
                "document": {"template": "{body}", "metadata": ["Some Col"]},
            },
        ],
        "lake": {"path": str(folder / "lake"), "land_every": "1s", "merge_every": "3s"},
        "embedding": embedding(model_url, model="cohere.embed-v4:0"),
        "sinks": [{"type": "pgvector", "dsn": dsn, "table": VIEW}],
        "checkpoint": str(folder / "checkpoint"),
    }


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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_lake_tables_and_store_equal_the_source(
    kafka_source: dict[str, Any],
    database: Database,
    vectors_dsn: str,
    instant_model: ModelService,
    local_stack: Stack,
    tmp_path: Path,
) -> None:
    for number in range(10, 40):
        database.insert(number, f"row {number} beside the snapshot " * 4)
    model_url = instant_model.endpoint["endpoint_url"]
    before = counters(model_url)
    configuration = document(kafka_source, vectors_dsn, model_url, tmp_path)
    pipeline = Pipeline(tmp_path / "p", configuration, mark=str(local_stack.directory))
    with running(pipeline):
        pipeline.start()
        database.edges()
        pipeline.await_equal(database.source)
    twice = {place: count for place, count in pipeline.landed().items() if count > 1}
    assert not twice, f"records that stand twice in the lake: {sorted(twice)[:5]}"
    asked = counters(model_url)
    texts, distinct = (asked[name] - before[name] for name in ("texts", "distinct_texts"))
    assert texts - distinct <= 96, f"{texts} texts were sent for {distinct} distinct ones"

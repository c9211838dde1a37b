"""A schema registry's converter in the Connect worker: PostgreSQL, Debezium, Avro, Kafka, all jobs; each end is the source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local_stack.models.service import ModelService
from local_stack.servers.aws import Moto
from local_stack.servers.connect import Connect
from local_stack.servers.kafka import Broker
from local_stack.stack import Stack
from tests.captured import wrong_with_capture
from tests.e2e.database import Database, document
from tests.e2e.pipeline import Pipeline, running
from tests.servers import unique

FRAME = b"\3\0"
"""What a value of AWS's converter begins with: its format's number, and that it is not compressed."""


@pytest.mark.covers(
    "postgresql", "debezium", ("type", "snapshot", "delete", "key change", "large value", "drift"), "live"
)
@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_avro_of_glues_converter_in_a_worker_ends_as_its_source(  # noqa: PLR0917 - fixtures
    source_dsn: str,
    kafka: Broker,
    connect: Connect,
    glue: Moto,
    vectors_dsn: str,
    instant_model: ModelService,
    local_stack: Stack,
    tmp_path: Path,
) -> None:
    database, name = Database(source_dsn), unique("avro")
    glue.client("glue").create_registry(RegistryName=name)
    registry = {"type": "glue", "name": name, **glue.endpoint}
    source: dict[str, Any] = {
        "type": "kafka",
        "envelope": "debezium",
        "topics": [f"{name}.public.everything"],
        "registry": registry,
    }
    capture = {"type": "debezium", "dsn": source_dsn, "connect_url": connect.url, "replication_factor": 1}
    folder, model_url = tmp_path / "p", instant_model.endpoint["endpoint_url"]
    written = document({**source, **kafka.endpoint}, vectors_dsn, model_url, folder) | {
        "name": name,
        "capture": capture,
    }
    written["tables"] = [written["tables"][0] | {"columns": {}}]  # a table with rules keeps no bytes
    for number in range(10, 30):
        database.insert(number, f"row {number} before the capture")
    with running(Pipeline(folder, written, mark=str(local_stack.directory))) as pipeline:
        try:
            applied = pipeline.command("capture", "--apply")
            assert applied.returncode == 0, applied.stderr
            driver = pipeline.start()
            pipeline.await_equal(database.source)
            database.edges()
            database.some_changes()
            database.execute("ALTER TABLE {t} ADD COLUMN extra text")
            database.execute("UPDATE {t} SET extra = 'x' || id")  # an older row lacks the column until it is written
            database.some_changes()
            database.execute("UPDATE {t} SET extra = 'y' || id")
            pipeline.await_equal(database.source)
            assert wrong_with_capture(pipeline.path) == []
            assert driver.stop() == 0
        finally:
            connect.delete_connector(name)
    changes = pipeline.delta("changes", ["key", "value"])
    assert {part[:2] for row in changes for part in row.values()} == {FRAME}
    assert len(pipeline.delta("registered_schemas", ["schema"])) >= 3, (
        "a key's, and a value's with and without a column; the snapshot and the log describe NUMERIC differently"
    )

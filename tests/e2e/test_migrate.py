"""The running job learns of another model's generation, and is started again with that model, while rows keep changing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path

import psycopg
import pytest

from glue_jobs.status.report import status
from local_stack.models.service import ModelService
from local_stack.servers.connect import request_json
from local_stack.servers.kafka import Broker
from local_stack.stack import Stack
from tests.e2e.pipeline import START_SECONDS, Pipeline, embedding, running
from tests.e2e.topic_table import TopicTable, configuration
from tests.waiting import eventually

COHERE = "cohere.embed-english-v3"


class Changing(threading.Thread):
    """Commits to a topic, a row each tenth of a second."""

    def __init__(self, table: TopicTable) -> None:
        super().__init__(name="changing", daemon=True)
        self._table, self.ended, self.rows = table, threading.Event(), 0

    def run(self) -> None:
        for number in count(1000):
            if self.ended.wait(0.1):
                return
            self._table.model.insert(number, f"row {number}")
            if number % 3 == 0 and number > 1005:
                self._table.model.update_body(number - 2, f"newer {number}")
            if number % 5 == 0 and number > 1005:
                self._table.model.delete(number - 4)
            self._table.send()
            self.rows += 1

    def goes_on(self) -> None:
        """Wait for twenty more rows."""
        before = self.rows
        eventually(lambda: self.rows >= before + 20, 60)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_running_pipeline_is_moved_to_another_model(
    kafka: Broker,
    new_topic: Callable[..., str],
    vectors_dsn: str,
    instant_model: ModelService,
    local_stack: Stack,
    tmp_path: Path,
) -> None:
    model_url, topic = instant_model.endpoint["endpoint_url"], new_topic(2)
    request_json(model_url, "POST", "/reset", {})
    document = configuration(tmp_path, kafka, [topic], model_url, vectors_dsn, stores=["kb"])
    table = TopicTable(kafka, topic, vectors_dsn)
    changing = Changing(table)
    with running(Pipeline(tmp_path / "p", document, mark=str(local_stack.directory))) as pipeline:
        driver = pipeline.start("--jobs", "land,index")
        table.model.insert(1, "steady")
        table.send()
        eventually(lambda: bool(table.shown("kb")), START_SECONDS)
        changing.start()
        moved = pipeline.command("migrate", "--to", COHERE, "--json", seconds=300)
        assert moved.returncode == 0, moved.stderr
        assert json.loads(moved.stdout)["stores"]["kb"]["index_version"] == 2
        changing.goes_on()
        driver.kill()
        driver = pipeline.start("--jobs", "land,index")  # by the old model's name; the store has the other one
        changing.goes_on()
        changing.ended.set()
        changing.join()
        table.await_shown("kb")
        assert lengths(vectors_dsn, "kb") == {1024}
        kept = status(pipeline.config)["stores"]["kb"]["model"]
        assert (kept["index_version"], list(kept["others"].values())) == (2, ["ready"])
        assert driver.stop() == 0
        pipeline.write(document | {"embedding": embedding(model_url, model=COHERE, dimensions=1024)})
        driver = pipeline.start("--jobs", "land,index")
        table.insert_shown("kb", range(20_000, 20_003))
        assert counted(vectors_dsn, 1) == counted(vectors_dsn, 2)
        collected = pipeline.command("migrate", "--collect", "--json")
        assert json.loads(collected.stdout) == {"collected": {"kb": [1]}}, collected.stderr
        table.insert_shown("kb", range(20_010, 20_013))
        assert driver.stop() == 0
    assert lengths(vectors_dsn, "kb") == {1024}


def lengths(dsn: str, view: str) -> set[int]:
    with psycopg.connect(dsn) as connection:
        return {n for (n,) in connection.execute(f"SELECT DISTINCT vector_dims(embedding) FROM {view}".encode())}


def counted(dsn: str, index_version: int) -> list[tuple[str, str]]:
    """Heads of a generation."""
    statement = f"SELECT document_id, sequence FROM kb_g{index_version}_documents ORDER BY 1"
    with psycopg.connect(dsn) as connection:
        return connection.execute(statement.encode()).fetchall()

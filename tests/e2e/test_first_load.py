"""Loads through readers without the vector index until their end: the first of a store, and of a table that comes later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from embeddings import open_embedder
from glue_jobs.status.report import status
from local_stack.models.service import ModelService
from local_stack.servers.kafka import Broker
from local_stack.stack import Stack
from retrieval.ranking.active_index import ActiveIndex
from sinks import open_sink
from sinks.versions import BulkLoad
from tests.e2e.pipeline import START_SECONDS, Pipeline, running
from tests.e2e.topic_table import TopicTable, configuration
from tests.stores import vector_indexes
from tests.waiting import eventually

ROWS = 3_000
"""More than a store that needs no index has."""
NEW = 20_000
"""Of a table that comes later: more than enough to be worth it while some are inserted one by one."""


class Loading:
    """A table of a topic, a pipeline whose store has nothing of it yet, and a second table when it is asked for."""

    def __init__(self, kafka: Broker, new_topic: Callable[..., str], dsn: str, model_url: str, folder: Path) -> None:
        self._kafka, self._new_topic, self._model_url, self._folder = kafka, new_topic, model_url, folder
        self.table = TopicTable(kafka, new_topic(2), dsn)
        self.document = self._configuration([self.table])
        self.pipeline: Pipeline

    def with_another_table(self) -> TopicTable:
        """Add a table to the pipeline, for the next driver."""
        other = TopicTable(self._kafka, self._new_topic(2), self.table.dsn, "u")
        self.pipeline.write(self._configuration([self.table, other]))
        return other

    def _configuration(self, tables: list[TopicTable]) -> dict[str, Any]:
        topics, names = [table.topic for table in tables], [table.name for table in tables]
        return configuration(
            self._folder, self._kafka, topics, self._model_url, self.table.dsn, stores=["first"], tables=names
        )


@pytest.fixture
def loading(
    kafka: Broker,
    new_topic: Callable[..., str],
    vectors_dsn: str,
    instant_model: ModelService,
    local_stack: Stack,
    tmp_path: Path,
) -> Iterator[Loading]:
    made = Loading(kafka, new_topic, vectors_dsn, instant_model.endpoint["endpoint_url"], tmp_path)
    with running(Pipeline(tmp_path / "p", made.document, mark=str(local_stack.directory))) as made.pipeline:
        yield made


@pytest.mark.slow
def test_a_killed_first_load_ends_with_an_index(loading: Loading) -> None:
    table, pipeline = loading.table, loading.pipeline
    for number in range(ROWS):
        table.model.insert(number, f"row {number}")
    driver = pipeline.start("--jobs", "index")
    eventually(lambda: load_of(pipeline), START_SECONDS, driver.process)
    table.send()
    eventually(lambda: count(table.dsn), 60, driver.process)
    driver.kill()
    load = load_of(pipeline)
    assert load is not None
    assert load.by == "first load"
    assert not any(vector_indexes(table.dsn, "first"))
    assert searched(pipeline) == count(table.dsn) > 0
    driver = pipeline.start("--jobs", "index")
    table.model.update_body(7, "changed while the store was loaded")
    table.model.delete(8)
    table.send()
    eventually(lambda: load_of(pipeline) is None, START_SECONDS, driver.process)
    assert vector_indexes(table.dsn, "first") == [True]
    table.await_shown("first")
    assert status(pipeline.config)["stores"]["first"]["filling"] is None
    assert driver.logged("vector index is built", store="first")
    assert driver.stop() == 0


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_later_table_is_loaded_without_the_index_through_a_kill(loading: Loading) -> None:
    """Many rows of a table that a filled store lacks; `test_catching_up` has the decision, and runs always."""
    table, pipeline = loading.table, loading.pipeline
    for number in range(ROWS):
        table.model.insert(number, f"row {number}")
    table.send()
    driver = pipeline.start("--jobs", "index")
    eventually(lambda: load_of(pipeline) is None and vector_indexes(table.dsn, "first") == [True], 120, driver.process)
    table.await_shown("first")
    assert driver.stop() == 0

    other = loading.with_another_table()
    for number in range(NEW):
        other.model.insert(number, f"other {number}")
    other.send()
    driver = pipeline.start("--jobs", "index")
    eventually(lambda: load_of(pipeline), START_SECONDS, driver.process)
    load = load_of(pipeline)
    assert load is not None
    assert load.by == "catching up"
    eventually(lambda: not vector_indexes(table.dsn, "first"), 30, driver.process)
    assert nearest(pipeline, "body other 5") == "body other 5"
    driver.kill()
    assert load_of(pipeline) == load
    table.model.insert(ROWS, "inserted while the store caught up")
    table.send()
    driver = pipeline.start("--jobs", "index")
    eventually(lambda: load_of(pipeline) is None, 120, driver.process)
    assert vector_indexes(table.dsn, "first") == [True]
    table.await_shown("first")
    assert texts(other) == sorted(str(row["body"]) for row in other.model.rows.values())
    assert nearest(pipeline, f"body other {NEW - 1}") == f"body other {NEW - 1}"
    assert driver.stop() == 0


def load_of(pipeline: Pipeline) -> BulkLoad | None:
    assert pipeline.config.embedding is not None
    embedder = open_embedder(pipeline.config.embedding)
    with closing(open_sink(pipeline.config.sinks[0], embedder.fingerprint, embedder.dimensions)) as sink:
        return sink.bulk_load_now()


def searched(pipeline: Pipeline) -> int:
    """How many rows a search for everything finds."""
    assert pipeline.config.embedding is not None
    with closing(ActiveIndex(pipeline.config.sinks[0], pipeline.config.embedding)) as active:
        return len(active.searcher().search("row", ROWS).results)


def nearest(pipeline: Pipeline, text: str) -> str:
    """The text that a search for a text puts first."""
    assert pipeline.config.embedding is not None
    with closing(ActiveIndex(pipeline.config.sinks[0], pipeline.config.embedding)) as active:
        return active.searcher().search(text, 1).results[0].hit.chunk_text


def texts(table: TopicTable) -> list[str]:
    """The texts that the store shows of a table."""
    with psycopg.connect(table.dsn) as connection:
        query = "SELECT chunk_text FROM first WHERE table_name = %s"
        return sorted(text for (text,) in connection.execute(query, [f"public.{table.name}"]))


def count(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT count(*) FROM first").fetchone()
    return int(row[0]) if row else 0

"""Loads through readers without the vector index until their end: the first of a store, and of a table that comes later."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

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


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_killed_first_load_and_a_later_table_end_with_an_index(
    kafka: Broker,
    new_topic: Callable[..., str],
    vectors_dsn: str,
    instant_model: ModelService,
    local_stack: Stack,
    tmp_path: Path,
) -> None:
    topic, model_url = new_topic(2), instant_model.endpoint["endpoint_url"]
    table = TopicTable(kafka, topic, vectors_dsn)
    document = configuration(tmp_path, kafka, [topic], model_url, vectors_dsn, stores=["first"])
    for number in range(ROWS):
        table.model.insert(number, f"row {number}")
    with running(Pipeline(tmp_path / "p", document, mark=str(local_stack.directory))) as pipeline:
        driver = pipeline.start("--jobs", "index")
        eventually(lambda: load_of(pipeline), START_SECONDS, driver.process)
        table.send()
        eventually(lambda: count(vectors_dsn), 60, driver.process)
        driver.kill()
        load = load_of(pipeline)
        assert load is not None
        assert load.by == "first load"
        assert not any(vector_indexes(vectors_dsn, "first"))
        assert searched(pipeline) == count(vectors_dsn) > 0
        driver = pipeline.start("--jobs", "index")
        table.model.update_body(7, "changed while the store was loaded")
        table.model.delete(8)
        table.send()
        eventually(lambda: load_of(pipeline) is None, START_SECONDS, driver.process)
        assert vector_indexes(vectors_dsn, "first") == [True]
        table.await_shown("first")
        assert status(pipeline.config)["stores"]["first"]["filling"] is None
        assert driver.logged("vector index is built", store="first")
        assert driver.stop() == 0

        other = TopicTable(kafka, new_topic(2), vectors_dsn, "u")
        topics, tables = [topic, other.topic], ["t", "u"]
        pipeline.write(configuration(tmp_path, kafka, topics, model_url, vectors_dsn, stores=["first"], tables=tables))
        load_behind(pipeline, table, other)


def load_behind(pipeline: Pipeline, table: TopicTable, other: TopicTable) -> None:
    """Start a driver with many rows of another table behind it: they are loaded without the index, and searched meanwhile."""
    for number in range(NEW):
        other.model.insert(number, f"other {number}")
    other.send()
    driver = pipeline.start("--jobs", "index")
    eventually(lambda: load_of(pipeline), START_SECONDS, driver.process)
    load = load_of(pipeline)
    assert load is not None
    assert load.by == "catching up"
    eventually(lambda: not vector_indexes(other.dsn, "first"), 30, driver.process)
    assert nearest(pipeline, "body other 5") == "body other 5"
    table.model.insert(ROWS, "inserted while the store caught up")
    table.send()
    eventually(lambda: load_of(pipeline) is None, START_SECONDS, driver.process)
    assert vector_indexes(other.dsn, "first") == [True]
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

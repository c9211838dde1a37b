"""The first load of a store through readers: without the vector index until its end, and killed in its middle."""

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


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_first_load_killed_in_its_middle_ends_with_its_index(
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


def count(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT count(*) FROM first").fetchone()
    return int(row[0]) if row else 0

"""Every server away for some seconds and back: the pipeline catches up, and nobody touches it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from local_stack.models.service import ModelService
from local_stack.service import Service
from local_stack.stack import Stack
from tests.e2e.database import Database, document
from tests.e2e.pipeline import Pipeline, running

AWAY_SECONDS = 8.0
"""Longer than a query's pauses grow; `make test-long` has outages of 20 seconds."""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("way", "outages"),
    [("kafka", (("kafka",), ("connect", "vectors", "instant_model"))), ("kinesis", (("aws",),))],
    ids=["kafka", "kinesis"],
)
def test_every_server_comes_back_and_nothing_is_missing(  # noqa: PLR0917 - fixtures
    way: str,
    outages: Sequence[Sequence[str]],
    request: pytest.FixtureRequest,
    database: Database,
    instant_model: ModelService,
    vectors_dsn: str,
    local_stack: Stack,
    tmp_path: Path,
) -> None:
    source = request.getfixturevalue(f"{way}_source")
    model_url = instant_model.endpoint["endpoint_url"]
    folder = tmp_path / "p"
    pipeline = Pipeline(folder, document(source, vectors_dsn, model_url, folder), mark=str(local_stack.directory))
    survives(pipeline, database, [[request.getfixturevalue(name) for name in names] for names in outages])


def survives(pipeline: Pipeline, database: Database, outages: Sequence[Sequence[Service]]) -> None:
    """One driver lives through outages, each of some servers at once, while the source goes on committing."""
    with running(pipeline):
        database.some_changes()
        driver = pipeline.start()
        pipeline.await_equal(database.source)
        for servers in outages:
            for server in servers:
                server.stop()
            database.some_changes()
            time.sleep(AWAY_SECONDS)
            database.some_changes()
            for server in servers:
                server.start()
            database.some_changes()
            pipeline.await_equal(database.source)
        assert driver.stop() == 0
        assert all(count == 1 for count in pipeline.landed().values())

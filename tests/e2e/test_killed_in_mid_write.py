"""PostgreSQL through Debezium and Kafka, and through the DMS stand-in and Kinesis: lake, tables and store equal the source.

Also when the driver is killed with its jobs at points of theirs, and started again once each time; or a reader alone. And when
every server is away for some seconds and comes back, and nobody touches the driver. The values of a column that must not travel
are written nowhere. `make test` kills each way in at some of the points, `make test-long` both at all of them.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from local_stack.models.service import ModelService
from local_stack.service import Service
from local_stack.stack import Stack
from tests.canaries import places_of
from tests.e2e.database import CANARY, Database, document
from tests.e2e.pipeline import Driver, Pipeline, counters, running

WHOLE = (
    *((f"merge-{point}", f"land-{point}", f"index-{point}") for point in ("read", "half", "written")),
    ("index-embedded",),
)
"""Where the jobs of one driver stand when it is killed. A merge is stopped first: it wants what lands meanwhile."""
READER_POINTS = ("index-read", "index-embedded", "index-half")
"""Where a reader alone is killed, and its driver lives on."""
OUTAGES = {"kafka": ("kafka", "connect", "vectors", "instant_model"), "kinesis": ("aws",)}
"""Servers that are away at once, by the way in; readers live through outages of one server each (`test_readers.py`)."""
AWAY_SECONDS = 4.0
"""Besides what a server takes to stop and start; `make test-long` has outages of 20 seconds."""
REQUEST_TEXTS = 96
"""Texts in a request of the model under test."""


@pytest.mark.covers(
    "postgresql", ("debezium", "dms"), ("type", "snapshot", "delete", "key change", "truncate", "large value"), "live"
)
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("way", "lives", "reader_points"),
    [
        pytest.param(
            "kafka", (("merge-read", "land-half", "index-written"),), ("index-read", "index-half"), id="kafka"
        ),
        pytest.param("kinesis", (("merge-half", "land-written", "index-embedded"),), ("index-embedded",), id="kinesis"),
        pytest.param("kafka", WHOLE, READER_POINTS, id="kafka-whole", marks=pytest.mark.long),
        pytest.param("kinesis", WHOLE, READER_POINTS, id="kinesis-whole", marks=pytest.mark.long),
    ],
)
def test_stores_equal_the_source_whoever_dies_or_is_away(  # noqa: PLR0917 - fixtures
    way: str,
    lives: Sequence[Sequence[str]],
    reader_points: Sequence[str],
    request: pytest.FixtureRequest,
    database: Database,
    vectors_dsn: str,
    instant_model: ModelService,
    local_stack: Stack,
    tmp_path: Path,
) -> None:
    for number in range(10, 40):
        database.insert(number, f"row {number} before the capture " * 4)
    source = request.getfixturevalue(f"{way}_source")
    model_url = instant_model.endpoint["endpoint_url"]
    before = counters(model_url)
    configuration = document(source, vectors_dsn, model_url, tmp_path)
    pipeline = Pipeline(tmp_path / "p", configuration, mark=str(local_stack.directory))
    with running(pipeline):
        driver = pipeline.start(breakpoints=True)
        database.edges()
        pipeline.await_equal(database.source)
        for points in lives:
            for point in points:
                pipeline.breakpoints.set(point)
                database.some_changes()
                pipeline.await_reached(point, seconds=120)
            driver.kill()
            pipeline.breakpoints.clear()
            database.some_changes()
            driver = pipeline.start(breakpoints=True)  # once: it must come to life by itself
        for point in reader_points:
            kill_reader(pipeline, driver, database, point)
        pipeline.await_equal(database.source)
        asked = counters(model_url)  # a model that is started again counts from zero
        take_away(pipeline, database, [request.getfixturevalue(name) for name in OUTAGES[way]])
        assert driver.stop() == 0
    twice = {place: count for place, count in pipeline.landed().items() if count > 1}
    assert not twice, f"records that stand twice in the lake: {sorted(twice)[:5]}"
    assert places_of(CANARY, tmp_path, vectors_dsn) == []
    texts, distinct = (asked[name] - before[name] for name in ("texts", "distinct_texts"))
    killed_in_flight = 2 * REQUEST_TEXTS  # one request of each of two workers
    assert texts - distinct <= killed_in_flight, f"{texts} texts were sent for {distinct} distinct ones"


def kill_reader(pipeline: Pipeline, driver: Driver, database: Database, point: str) -> None:
    """Kill a reader at a point of its own."""
    pipeline.breakpoints.set(point)
    database.some_changes()
    (pid,) = pipeline.await_reached(point)
    (reader,) = (candidate for candidate in driver.readers if candidate.pid == pid)
    reader.send(signal.SIGKILL)
    pipeline.breakpoints.clear()
    database.some_changes()


def take_away(pipeline: Pipeline, database: Database, servers: Sequence[Service]) -> None:
    """Stop servers and start them again, while the source goes on committing."""
    for server in servers:
        server.stop()
    database.some_changes()
    time.sleep(AWAY_SECONDS)
    database.some_changes()
    for server in servers:
        server.start()
    database.some_changes()
    pipeline.await_equal(database.source)

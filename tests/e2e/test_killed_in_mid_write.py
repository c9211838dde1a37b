"""PostgreSQL through Debezium and Kafka, and through the DMS stand-in and Kinesis: lake, tables and store equal the source.

Also when the driver is killed with its jobs at every point of theirs, and started again once each time; or a reader alone. The
values of a column that must not travel are written nowhere.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from local_stack.models.service import ModelService
from local_stack.stack import Stack
from tests.canaries import places_of
from tests.e2e.database import CANARY, Database, document
from tests.e2e.pipeline import Pipeline, counters, running

READ, HALF, WRITTEN = ((f"merge-{point}", f"land-{point}", f"index-{point}") for point in ("read", "half", "written"))
EARLY, LATE = (READ, HALF), (WRITTEN, ("index-embedded",))
"""Where the jobs of one driver stand when it is killed. A merge is stopped first: it wants what lands meanwhile."""
READER_POINTS = ("index-read", "index-embedded", "index-half")
"""Where a reader alone is killed, and its driver lives on."""
REQUEST_TEXTS = 96
"""Texts in a request of the model under test."""


@pytest.mark.covers(
    "postgresql", ("debezium", "dms"), ("type", "snapshot", "delete", "key change", "truncate", "large value"), "live"
)
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("way", "lives"),
    [
        pytest.param("kafka", EARLY, id="kafka-early"),
        pytest.param("kinesis", LATE, id="kinesis-late"),
        pytest.param("kafka", LATE, id="kafka-late", marks=pytest.mark.long),
        pytest.param("kinesis", EARLY, id="kinesis-early", marks=pytest.mark.long),
    ],
)
def test_stores_equal_the_source_whoever_dies_when(  # noqa: PLR0917 - fixtures
    way: str,
    lives: Sequence[Sequence[str]],
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
        pipeline.await_equal(database.source)
        for point in READER_POINTS:
            pipeline.breakpoints.set(point)
            database.some_changes()
            (pid,) = pipeline.await_reached(point, seconds=120)
            (reader,) = (each for each in driver.readers if each.pid == pid)
            reader.send(signal.SIGKILL)
            pipeline.breakpoints.clear()
            database.some_changes()
        pipeline.await_equal(database.source)
        assert driver.stop() == 0
    twice = {place: count for place, count in pipeline.landed().items() if count > 1}
    assert not twice, f"records that stand twice in the lake: {sorted(twice)[:5]}"
    assert places_of(CANARY, tmp_path, vectors_dsn) == []
    asked = counters(model_url)
    texts, distinct = (asked[name] - before[name] for name in ("texts", "distinct_texts"))
    killed_in_flight = 2 * REQUEST_TEXTS  # one request of each of two workers
    assert texts - distinct <= killed_in_flight, f"{texts} texts were sent for {distinct} distinct ones"

"""PostgreSQL through Debezium and Kafka, and through the DMS stand-in and Kinesis: lake, tables and store equal the source.

Also when the driver is killed at every point of every job, each time once, and started again once.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from local_stack.model_service import ModelService
from local_stack.stack import Stack
from tests.e2e.database import Database, document
from tests.e2e.pipeline import Driver, Pipeline, counters, eventually, running

KILLS = [
    *(f"{job}-{point}" for job in ("index", "land", "merge") for point in ("read", "half", "written")),
    "index-embedded",
]
REQUEST_TEXTS = 96
"""Texts in a request of the model under test."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", ["kafka", "kinesis"])
def test_stores_equal_the_source_whoever_dies_when(  # noqa: PLR0917 - fixtures
    way: str,
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
        driver = pipeline.start(deadly=True)
        database.edges()
        pipeline.await_equal(database.source)
        for point in KILLS:
            (pipeline.orders / point).touch()
            database.some_changes()
            eventually(partial(_still_alive, driver, point), 120)
            database.some_changes()
            driver = pipeline.start(deadly=True)  # once: it must come to life by itself
        pipeline.await_equal(database.source)
        database.some_changes()
        pipeline.await_equal(database.source)
        assert driver.stop() == 0
    twice = {place: count for place, count in pipeline.landed().items() if count > 1}
    assert not twice, f"records that stand twice in the lake: {sorted(twice)[:5]}"
    asked = counters(model_url)
    texts, distinct = (asked[name] - before[name] for name in ("texts", "distinct_texts"))
    killed_in_flight = 2 * REQUEST_TEXTS  # one request of each of two workers
    assert texts - distinct <= killed_in_flight, f"{texts} texts were sent for {distinct} distinct ones"


def _still_alive(driver: Driver, point: str) -> list[str]:
    return [f"the driver does not come to {point}"] if driver.alive else []

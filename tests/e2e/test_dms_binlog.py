"""MariaDB through the DMS stand-in and Kinesis, with transaction details and without: lake, tables and store equal it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from local_stack.models.service import ModelService
from local_stack.servers.aws import Ministack
from local_stack.servers.mariadb import MariaDB
from local_stack.stack import Stack
from tests.e2e.binlog import DMS, BinlogSource, document
from tests.e2e.dms import DmsTask
from tests.e2e.pipeline import Pipeline, running
from tests.waiting import eventually

SETTINGS = {"details": (), "bare": ("--omit-details",)}
"""Of a table's task each."""
DECLARED = {"seen": "timestamptz", "data": "json"}
"""DMS says neither that a time is in UTC nor that a text is JSON."""


@pytest.mark.covers("mariadb", "dms", ("type", "snapshot", "delete", "key change", "large value"), "live")
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_tasks_over_two_files_of_a_log_lose_nothing(  # noqa: PLR0917 - fixtures
    mariadb: MariaDB,
    mariadb_database: str,
    aws: Ministack,
    new_stream: Callable[..., str],
    vectors_dsn: str,
    instant_model: ModelService,
    local_stack: Stack,
    tmp_path: Path,
) -> None:
    source = BinlogSource(mariadb, mariadb_database, DMS)
    source.before_the_capture()
    mark, dsn, streams = str(local_stack.directory), mariadb.dsn(""), {name: new_stream(2) for name in SETTINGS}
    places = [tmp_path / f"{name}.json" for name in SETTINGS]
    tasks = [
        DmsTask(
            dsn, [table], streams[name], aws.endpoint, f"--checkpoint={place}", *options, log=tmp_path / name, mark=mark
        )
        for table, place, (name, options) in zip(source.tables, places, SETTINGS.items(), strict=True)
    ]
    model_url = instant_model.endpoint["endpoint_url"]
    configuration = document({}, mariadb_database, vectors_dsn, model_url, tmp_path)
    configuration["source"] = [
        {"name": name, "type": "kinesis", "envelope": "dms", "stream": stream, **aws.endpoint}
        for name, stream in streams.items()
    ]
    for table, name in zip(configuration["tables"], SETTINGS, strict=True):
        table["source"] = name
    configuration["tables"][0]["columns"] = DECLARED
    pipeline = Pipeline(tmp_path / "p", configuration, mark=mark)
    with running(pipeline):
        driver = pipeline.start()
        try:
            for task in tasks:
                task.start()
            eventually(lambda: all(place.exists() for place in places))
            source.insert(8, "while they run")
            for task in tasks:
                task.kill()
            source.edges()
            for task in tasks:
                task.start()
            source.execute(
                "UPDATE things SET id = id + 2000, status = 'moved' WHERE id < 20", "DELETE FROM things WHERE id = 20"
            )
            pipeline.await_equal(source.source)
        finally:
            for task in tasks:
                task.stop()
        assert driver.stop() == 0
    assert pipeline.delta("rejects", ["stage"]) == []

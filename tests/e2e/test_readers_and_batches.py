"""Readers and micro-batches on one checkpoint: a driver with readers, a drain, and a driver with readers again."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from glue_jobs.continuous import store_positions
from glue_jobs.status.report import status
from local_stack.models.service import ModelService
from local_stack.stack import Stack
from tests.e2e.database import Database, document
from tests.e2e.pipeline import Pipeline, running
from tests.waiting import NothingWrong, eventually

JOBS = "land,index"


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("way", ["kafka", pytest.param("kinesis", marks=pytest.mark.long)])
def test_a_checkpoint_goes_from_readers_to_micro_batches_and_back(  # noqa: PLR0917 - fixtures
    way: str,
    request: pytest.FixtureRequest,
    database: Database,
    vectors_dsn: str,
    instant_model: ModelService,
    local_stack: Stack,
    tmp_path: Path,
) -> None:
    source = request.getfixturevalue(f"{way}_source")
    model_url = instant_model.endpoint["endpoint_url"]
    configuration = document(source, vectors_dsn, model_url, tmp_path)
    pipeline = Pipeline(tmp_path / "p", configuration, mark=str(local_stack.directory))
    place = f"{pipeline.config.checkpoint}/index_{pipeline.config.sources[0].name}"
    with running(pipeline):
        driver = pipeline.start("--jobs", JOBS)
        database.edges()
        pipeline.await_equal(database.source, merged=False)
        eventually(NothingWrong(partial(_not_fresh, pipeline)), 30)
        readers = driver.readers
        assert readers, "it is read by readers"
        assert driver.stop() == 0
        eventually(lambda: not any(reader.alive for reader in readers))
        assert "Traceback" not in driver.log.read_text()
        assert not driver.logged("query failed, starting again")
        assert _readers_go_on(place)
        eventually(NothingWrong(partial(_miscounted, pipeline, 0)))

        database.some_changes()
        assert pipeline.drain("--jobs", JOBS).process.returncode == 0
        assert not _readers_go_on(place)

        database.some_changes()
        driver = pipeline.start("--jobs", JOBS)
        pipeline.await_equal(database.source, merged=False)
        eventually(NothingWrong(partial(_not_fresh, pipeline)), 30)
        assert driver.stop() == 0
        # DMS tells a changed key by one record, of which index counts the old row and the new one.
        eventually(NothingWrong(partial(_miscounted, pipeline, 2 if way == "kinesis" else 0)))


def _readers_go_on(place: str) -> bool:
    known = store_positions.read(place)
    return known is not None and known.readers


def _not_fresh(pipeline: Pipeline) -> list[str]:
    """Nothing more is in the topics, and the store says so a moment later, and goes on saying so."""
    report = status(pipeline.config)
    lags = [store["lag_seconds"] for store in report["stores"].values()]
    return [] if all(lag is not None and lag < 3 for lag in lags) else [f"the stores lag: {lags}"]


def _miscounted(pipeline: Pipeline, changed_keys: int) -> list[str]:
    """Each change is counted once by index, as its record stands once in the lake."""
    report: dict[str, Any] = status(pipeline.config)
    name = f"index_{pipeline.config.sources[0].name}"
    counts = json.loads((Path(pipeline.config.checkpoint) / "status" / f"{name}.json").read_text())["counts"]
    indexed = {table: counts.get(table, {}).get("indexed", 0) for table in report["tables"]}
    landed = {table: row["changes"] for table, row in report["tables"].items()}
    landed["public.everything"] += changed_keys
    return [] if indexed == landed else [f"index counts {indexed}, landed are {landed}"]

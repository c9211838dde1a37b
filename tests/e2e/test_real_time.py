"""Real-time mode and micro-batches on one checkpoint: a driver that stays, a drain, and a driver that stays again."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from glue_jobs.status import status
from local_stack.model_service import ModelService
from local_stack.stack import Stack
from tests.e2e.database import Database, document
from tests.e2e.pipeline import Pipeline, eventually, running


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_checkpoint_goes_from_one_mode_to_the_other_and_back(
    kafka_source: dict[str, object],
    database: Database,
    vectors_dsn: str,
    instant_model: ModelService,
    local_stack: Stack,
    tmp_path: Path,
) -> None:
    model_url = instant_model.endpoint["endpoint_url"]
    configuration = document(kafka_source, vectors_dsn, model_url, tmp_path)
    pipeline = Pipeline(tmp_path / "p", configuration, mark=str(local_stack.directory))
    with running(pipeline):
        staying = pipeline.start()
        database.edges()
        pipeline.await_equal(database.source)
        eventually(partial(_not_fresh, pipeline), 30)
        assert staying.stop() == 0
        assert "Traceback" not in staying.log.read_text()
        assert not staying.told("query failed, starting again")
        database.some_changes()
        assert pipeline.drain().process.returncode == 0
        database.some_changes()
        staying = pipeline.start()
        pipeline.await_equal(database.source)
        assert staying.stop() == 0


def _not_fresh(pipeline: Pipeline) -> list[str]:
    """Nothing more is in the topics, and the store says that it holds all of it."""
    lags = [store["lag_seconds"] for store in status(pipeline.config)["stores"].values()]
    return [] if all(lag is not None and lag < 10 for lag in lags) else [f"the stores lag: {lags}"]

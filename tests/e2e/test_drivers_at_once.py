"""Several drivers on the same stores at once leave what one would."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from local_stack.models.service import ModelService
from local_stack.stack import Stack
from tests.e2e.pipeline import VIEW, Pipeline, embedding
from tests.e2e.recorded_changes import line, rows_of
from tests.history import TABLE, random_history


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_drivers_on_the_same_stores_at_once_leave_what_one_would(
    tmp_path: Path, local_stack: Stack, vectors_dsn: str, instant_model: ModelService
) -> None:
    table = random_history(11, 60)
    events = tmp_path / "events.jsonl"
    events.write_text("".join(f"{line(change, at)}\n" for at, change in enumerate(table.changes)))
    shared = (vectors_dsn, instant_model.endpoint["endpoint_url"], str(tmp_path / "lake"))
    one, copy = (
        Pipeline(folder, pipeline(folder, events, batch, *shared), mark=str(local_stack.directory))
        for folder, batch in ((tmp_path / "one", 17), (tmp_path / "copy", 23))
    )
    try:
        drivers = [pipe.start("--available-now") for pipe in (one, one, copy)]  # one configuration twice, and a copy
        ended = [driver.wait(400) for driver in drivers]
        assert ended == [0, 0, 0], _logs(drivers)
        for pipe in (one, copy):
            assert pipe.wrong(rows_of(table)) == []
        assert set(one.landed().values()) == {2}, "each checkpoint landed each record once"
    finally:
        for pipe in (one, copy):
            pipe.stop()


def pipeline(folder: Path, events: Path, batch: int, *shared: str) -> dict[str, Any]:
    dsn, model_url, lake = shared
    source = {
        "type": "files",
        "format": "kafka",
        "envelope": "debezium",
        "path": [str(events)],
        "max_records_per_trigger": batch,
    }
    document = {"template": "{body}", "metadata": ["a"], "chunk": {"max_tokens": 200}}
    return {
        "name": "writers",
        "source": source,
        "tables": [{"table": TABLE, "keys": ["id"], "document": document}],
        "lake": {"path": lake, "land_every": "1s", "merge_every": "1s"},
        "checkpoint": str(folder / "checkpoint"),
        "embedding": embedding(model_url, model="cohere.embed-v4:0"),
        "sinks": [{"type": "pgvector", "dsn": dsn, "table": VIEW}],
    }


def _logs(drivers: Sequence[Any]) -> str:
    return "\n".join(driver.log.read_text()[-1500:] for driver in drivers)

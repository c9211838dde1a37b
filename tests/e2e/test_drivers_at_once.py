"""Several drivers on the same stores at once leave what one would."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from local_stack.models.service import ModelService
from local_stack.stack import Stack
from tests.e2e.pipeline import Pipeline
from tests.e2e.test_edits import line, pipeline, rows_of
from tests.history import random_history


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_drivers_on_the_same_stores_at_once_leave_what_one_would(
    tmp_path: Path, local_stack: Stack, vectors_dsn: str, instant_model: ModelService
) -> None:
    table = random_history(11, 120)
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


def _logs(drivers: Sequence[Any]) -> str:
    return "\n".join(driver.log.read_text()[-1500:] for driver in drivers)

"""Landing stops before a batch that would be rejected, and goes on with it once the configuration is mended."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Mapping

import pytest
from pyspark.sql import SparkSession

from glue_jobs import land_changes
from glue_jobs.operations.replay_rejects import replay
from glue_jobs.runtime import JobContext
from glue_jobs.runtime.runner import run_queries
from glue_jobs.status.record import StatusRecords
from lake.landing.replay import Choice
from lake.layout import LakeLayout
from lake.storage import rows_of
from schemas.errors import StoppedError
from tests.history import TABLE
from tests.lake_to_store import Lake

LIMITS = {"most_share": 0.5, "among": 100}


def event(offset: int, row: Mapping[str, object]) -> str:
    source = {"schema": "public", "table": "t", "sequence": f'["{offset}","{offset}"]', "ts_us": 1}
    value = {"op": "c", "before": None, "after": row, "source": source}
    line = {
        "topic": "all",
        "partition": 0,
        "offset": offset,
        "timestamp": 1,
        "headers": [],
        "key": None,
        "value": value,
    }
    return json.dumps(line)


def counted(lake: Lake) -> Counter[str]:
    """Rows of the lake's tables."""
    layout = LakeLayout(lake.config.lake.path)
    return Counter({name: len(rows_of(layout.path(name), ["position"])) for name in ("changes", "rejects")})


def test_a_wrong_key_stops_landing_until_it_is_mended_or_accepted(spark: SparkSession, lake: Lake) -> None:
    lake.read(*(event(at, {"id": at, "a": "x"}) for at in range(90)), max_records_per_trigger=60)
    lake.change(rejects=LIMITS)
    lake.drain(spark)
    assert counted(lake) == {"changes": 90, "rejects": 0}
    lake.read(*(event(at, {"number": at}) for at in range(90, 300)), max_records_per_trigger=60)
    for _ in range(2):  # a driver that is started again stops again
        with pytest.raises(StoppedError, match=f"records of {TABLE} are rejects") as stopped:
            lake.drain(spark)
        assert "all/0 at" in str(stopped.value)
        assert 60 <= counted(lake)["rejects"] < 180
    accepting = JobContext(spark, lake.config, available_now=True, accept_rejects=True)
    run_queries(land_changes.plan(accepting), accepting, threading.Event(), StatusRecords(lake.config.checkpoint))
    assert counted(lake) == {"changes": 90, "rejects": 210}
    lake.read(*(event(at, {"number": at}) for at in range(300, 600)), max_records_per_trigger=300)
    with pytest.raises(StoppedError, match="300 of"):
        lake.drain(spark)
    lake.keys("number")
    lake.drain(spark)
    assert counted(lake) == {"changes": 390, "rejects": 210}
    assert replay(lake.config, Choice(condition="NO_KEY"))[TABLE]["landed"] == 210
    assert counted(lake) == {"changes": 600, "rejects": 210}

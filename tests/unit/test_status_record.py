"""What `status` says of a query by the clock, from records that its driver writes now and then."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from glue_jobs.status import record as status_record
from glue_jobs.status import report as status
from glue_jobs.status.record import QueryRecord, StatusRecords
from glue_jobs.storage import files


@pytest.mark.parametrize("checkpoint", ["/checkpoint", "s3a://bucket/checkpoint"])
def test_a_store_that_keeps_up_lags_by_a_tick_at_most(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now, written = 1_000.0, dict[str, str]()
    clock = SimpleNamespace(time=lambda: now, monotonic=lambda: now)
    monkeypatch.setattr(status_record, "time", clock)
    monkeypatch.setattr(status, "time", clock)
    monkeypatch.setattr(files, "read", written.get)
    monkeypatch.setattr(files, "write", written.__setitem__)
    running = SimpleNamespace(progress=lambda: None, idle_at=0.0, ticked_at=now, as_of=SimpleNamespace(at_us=0))
    records = StatusRecords(checkpoint)
    records.begin("index_kafka")
    lags = []
    for _ in range(400):
        now += 0.05
        if now - running.ticked_at >= 1.0:
            running.ticked_at, running.as_of.at_us = now, round((now - 0.2) * 1_000_000)
        if round(now * 20) % 10 == 0:  # the runner looks twice a second
            records.observe("index_kafka", cast("Any", running))
        lags.append(status.lag_of(QueryRecord.from_json(json.loads(text)) for text in written.values()))
    assert {lag for lag in lags if lag is not None} == {0.2}

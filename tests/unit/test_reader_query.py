"""A tick of the continuous query, without Spark: what readers answer, and what they are told next."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pyarrow as pa
import pytest

from glue_jobs.continuous import query as continuous
from glue_jobs.continuous.query import ReaderQuery
from glue_jobs.continuous.readers import Readers
from glue_jobs.runtime import Batch, Report
from reader.messages import Instruction
from sources.feeds import SourcePositions
from sources.kinesis.config import KinesisSourceConfig
from sources.kinesis.offsets import TRIM_HORIZON, Mark

PARENT, CHILDREN = "s/shard-0", ("s/shard-1", "s/shard-2")
CLOSED, NEW = asdict(Mark(TRIM_HORIZON, sequence="9", count=3, closed=True)), asdict(Mark(TRIM_HORIZON))


def test_children_of_shard_are_read_from_tick_after_its_end_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resharded(_: object, __: str, reading: SourcePositions) -> SourcePositions:
        ended = reading.stores["a"][PARENT]["closed"]
        return reading._replace(stores={"a": reading.stores["a"] | (dict.fromkeys(CHILDREN, NEW) if ended else {})})

    monkeypatch.setattr(continuous, "refreshed", resharded)
    asked: list[set[str]] = []

    def answer(instructions: Sequence[Instruction]) -> pa.Table:
        positions = {name: CLOSED for one in instructions for name in one.positions["a"]}
        asked.append(set(positions))
        harvest = {"part": 0, "address": "127.0.0.1:1", "positions": {"a": positions}, "behind": [], "as_of_us": {}}
        return pa.table({"harvest": [json.dumps(harvest | {"closed": True, "gaps": {}, "away": {}})]})

    stores = SimpleNamespace(backfills=SimpleNamespace(stores=()))
    config = SimpleNamespace(embedding=object(), sinks=(), readers=1, decoding=None)
    context = SimpleNamespace(
        config=config, spark=Mock(), checkpoint=lambda _: str(tmp_path / "checkpoint"), available_now=False
    )
    source = KinesisSourceConfig(type="kinesis", envelope="dms", stream="s", region="eu-central-1")
    monkeypatch.setattr(continuous, "with_announced", lambda *_: None)
    reports = Mock(as_of={source.name: SimpleNamespace(stores={})}, take=lambda _: Report())
    query = ReaderQuery(cast("Any", context), source, {}, reports, cast("Any", stores))
    monkeypatch.setattr(query, "_harvest", answer)
    query._readers = Readers(1, "e", SourcePositions(None, {"a": {PARENT: NEW}}))
    query._refreshed_at = time.time()
    for number in range(2):
        query.write(cast("Batch", SimpleNamespace(batch_id=number)))
    assert asked == [{PARENT}, set(CHILDREN)]

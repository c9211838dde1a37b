"""What index may have read of a source by some moment, and whether the lake holds it: by files of a checkpoint alone."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from glue_jobs.config.pipeline import PipelineConfig, parse_config
from glue_jobs.config.values import Substitution
from glue_jobs.continuous import store_positions
from glue_jobs.continuous.store_positions import StorePositions
from glue_jobs.status.landed import committed, readings, unlanded
from glue_jobs.status.record import QueryRecord
from sinks.digests import most_removed
from sources import SourceConfig, positions


class Pipeline:
    """A checkpoint as Spark and the runner leave it, and recorded events of 100 bytes."""

    def __init__(self, folder: Path) -> None:
        self.events, self.checkpoint = folder / "events.jsonl", folder / "checkpoint"
        self.write(100)
        source = {"type": "files", "format": "kafka", "envelope": "debezium", "path": [str(self.events)]}
        settings: dict[str, Any] = {"name": "p", "source": source, "tables": [{"table": "public.t", "keys": ["id"]}]}
        settings |= {"lake": {"path": str(folder / "lake")}, "checkpoint": str(self.checkpoint)}
        self.config: PipelineConfig = parse_config(json.dumps(settings), "p", Substitution({}, folder))

    def write(self, size: int) -> None:
        self.events.write_bytes(b" " * size)

    def batch(self, query: str, number: int, end: int, *, done: bool = True) -> None:
        folder = self.checkpoint / query
        for name in ("offsets", "commits"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        offset = json.dumps({str(self.events): end})
        (folder / "offsets" / str(number)).write_text(f'v1\n{{"batchWatermarkMs":0}}\n{offset}')
        if done:
            (folder / "commits" / str(number)).write_text("v1\n{}")

    def status(self, query: str, *, running: bool) -> None:
        place = self.checkpoint / query
        file = place.parent / "status" / f"{place.name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            json.dumps(asdict(QueryRecord(place.name, running=running)) | {"freshness": {}, "batch_seconds": {}})
        )

    def late(self) -> list[str]:
        return unlanded(readings(self.config))


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return Pipeline(tmp_path)


def test_of_index_that_may_be_running_bound_is_the_source_s_end(pipeline: Pipeline) -> None:
    pipeline.batch("index_files", 0, 40)
    pipeline.status("index_files", running=True)  # also of one that was killed
    pipeline.batch("land_files", 0, 99)
    assert pipeline.late() == ["files"]
    read = readings(pipeline.config)
    pipeline.write(200)
    pipeline.batch("land_files", 1, 100, done=False)
    assert unlanded(read) == ["files"], "planned is not landed"
    pipeline.batch("land_files", 1, 100)
    assert unlanded(read) == [], "what came after the moment does not matter"
    assert pipeline.late() == ["files"]


def test_of_one_that_ended_it_is_what_it_does_not_read_again(pipeline: Pipeline) -> None:
    pipeline.status("index_files", running=False)
    pipeline.batch("index_files", 0, 40)
    pipeline.batch("index_files", 1, 60, done=False)
    pipeline.batch("land_files", 0, 39)
    assert pipeline.late() == ["files"]
    pipeline.batch("land_files", 1, 40)
    assert pipeline.late() == []


def test_after_a_lost_checkpoint_nothing_is_taken_for_landed(pipeline: Pipeline) -> None:
    pipeline.batch("land_files", 0, 60)
    assert pipeline.late() == ["files"], "index may have read it by another checkpoint"
    pipeline.batch("land_files", 1, 100)
    assert pipeline.late() == []
    pipeline.status("index_files", running=False)
    assert pipeline.late() == [], "a record without offsets"
    for file in (pipeline.checkpoint / "land_files" / "commits").iterdir():
        file.unlink()
    assert committed(pipeline.config.sources[0], str(pipeline.checkpoint / "land_files")) is None
    assert pipeline.late() == ["files"]


def test_a_run_of_some_tables_counts_by_its_own_landing(pipeline: Pipeline) -> None:
    pipeline.batch("land_files", 0, 100)
    assert pipeline.late() == []
    pipeline.batch("tables/public.t/index_files", 0, 50)
    pipeline.status("tables/public.t/index_files", running=True)
    assert pipeline.late() == ["files (--tables public.t)"]
    pipeline.status("tables/public.t/index_files", running=False)
    pipeline.batch("tables/public.t/land_files", 0, 49)
    assert pipeline.late() == ["files (--tables public.t)"]
    pipeline.batch("tables/public.t/land_files", 1, 50)
    assert pipeline.late() == []


def test_readers_that_were_stopped_have_read_more_than_they_have_told(pipeline: Pipeline) -> None:
    pipeline.batch("land_files", 0, 40)
    pipeline.status("index_files", running=False)
    pipeline.batch("index_files", 0, 40)
    assert pipeline.late() == []
    place, stores = str(pipeline.checkpoint / "index_files"), {"store": {str(pipeline.events): 40}}
    store_positions.write(place, StorePositions(readers=True, stores=stores))
    assert pipeline.late() == ["files"]
    store_positions.write(place, StorePositions(readers=False))
    assert pipeline.late() == []


KAFKA = {"type": "kafka", "envelope": "debezium", "bootstrap_servers": "127.0.0.1:9092", "topics": ["a.b", "c"]}
KINESIS = {"type": "kinesis", "envelope": "dms", "stream": "s"}


def shards(**sequences: str) -> dict[str, Any]:
    return {
        "arn": "a",
        "created_ms": 1,
        "shards": {shard: {"origin": "TRIM_HORIZON", "sequence": at} for shard, at in sequences.items()},
    }


@pytest.mark.parametrize(
    ("source", "read", "wanted", "late"),
    [
        (KAFKA, {"a.b": {"0": 5, "1": 9}}, {"a.b": {"0": 5, "1": 9}}, []),
        (KAFKA, {"a.b": {"0": 6, "1": 8}}, {"a.b": {"0": 5, "1": 9}}, ["a.b/1"]),
        (KAFKA, {"a.b": {"0": 6}}, {"a.b": {"0": 5}, "c": {"0": 1, "1": 0}}, ["c/0"]),
        (KAFKA, {"a.b": {"0": 6}}, {"a.b": {"0": 5}, "dropped": {"0": 1}}, []),
        (KINESIS, shards(x="100", y="99"), shards(x="99", y="100"), ["s/y"]),
        (KINESIS, shards(x="100"), shards(x="", z=""), []),
        (KINESIS, shards(x="100"), shards(x="100", child="101"), ["s/child"]),
    ],
)
def test_every_partition_must_have_been_passed(
    source: dict[str, Any], read: dict[str, Any], wanted: dict[str, Any], late: list[str]
) -> None:
    config = TypeAdapter[SourceConfig](SourceConfig).validate_python(source)
    assert positions.behind(config, *(positions.of_offset(config, offsets) for offsets in (read, wanted))) == late


def test_a_repair_removes_a_small_share_unasked() -> None:
    assert [most_removed(documents) for documents in (0, 5, 399, 400, 100_000)] == [3, 3, 3, 4, 1000]

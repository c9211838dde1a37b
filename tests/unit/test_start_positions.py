"""Where readers go on after micro-batches, and micro-batches after readers: by files as Spark and the driver leave them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from glue_jobs.continuous import start_positions, store_positions
from glue_jobs.continuous.backfills import Backfills, Gap
from glue_jobs.continuous.start_positions import (
    BatchStart,
    for_micro_batches,
    for_readers,
    has_begun,
    is_interrupted,
    note_begin,
    note_missed,
)
from glue_jobs.continuous.store_positions import StorePositions
from sources import SourceConfig
from sources.feeds import SourcePositions
from sources.kinesis.offsets import Mark

_SOURCE = TypeAdapter[SourceConfig](SourceConfig)
KAFKA = _SOURCE.validate_python(
    {"type": "kafka", "envelope": "debezium", "bootstrap_servers": "127.0.0.1:9092", "topics": ["a.b", "c"]}
)
KINESIS = _SOURCE.validate_python({"type": "kinesis", "envelope": "dms", "stream": "s"})
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "checkpoints"
IDENTITY = {"topics": {"a.b": "nSz3Yw", "c": "Bx1fVQ"}}


class Checkpoint:
    """The folder of one query."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place = str(folder)

    def write(self, name: str, text: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def spark(self, number: int, offset: Mapping[str, Any], *, committed: bool = True) -> None:
        """As Spark 4.1 writes it, in micro-batches and in real-time mode alike."""
        metadata = '{"batchWatermarkMs":0,"batchTimestampMs":1795915348003,"conf":{"spark.sql.shuffle.partitions":"2"}}'
        self.write(f"offsets/{number}", f"v1\n{metadata}\n{json.dumps(offset)}")
        if committed:
            self.write(f"commits/{number}", 'v1\n{"nextBatchWatermarkMs":0}')

    def kafka(self) -> None:
        self.write("source-identity.json", json.dumps(IDENTITY))
        self.write("sources/0/0", '\0v1\n{"a.b":{"0":0,"1":0},"c":{"0":7}}')
        self.write("metadata", '{"id":"3f0c"}')


def test_readers_begin_where_micro_batches_of_kafka_had_committed_all(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    assert not has_begun(checkpoint.place)
    assert for_readers(KAFKA, checkpoint.place, ["x", "y"]) == (SourcePositions(None, {"x": {}, "y": {}}), ())
    checkpoint.kafka()
    first = {"a.b/0": 0, "a.b/1": 0, "c/0": 7}
    assert for_readers(KAFKA, checkpoint.place, ["x"]) == (SourcePositions(IDENTITY, {"x": first}), ()), (
        "`starting: latest`"
    )
    checkpoint.spark(0, {"a.b": {"0": 5, "1": 9}, "c": {"0": 8}})
    checkpoint.spark(1, {"a.b": {"0": 50, "1": 9}, "c": {"0": 8}}, committed=False)
    at = {"a.b/0": 5, "a.b/1": 9, "c/0": 8}
    assert for_readers(KAFKA, checkpoint.place, ["x", "y"]) == (SourcePositions(IDENTITY, {"x": at, "y": at}), ())
    assert has_begun(checkpoint.place)


def test_a_store_that_micro_batches_went_on_without_keeps_its_own_positions(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.kafka()
    checkpoint.spark(3, {"a.b": {"0": 5}})
    store_positions.write(checkpoint.place, StorePositions(readers=False, stores={"away": {"a.b/0": 2}, "gone": {}}))
    reading, behind = for_readers(KAFKA, checkpoint.place, ["x", "away"])
    assert reading.stores == {"x": {"a.b/0": 5}, "away": {"a.b/0": 2}}
    assert behind == ("away",)


def test_readers_resume_and_a_new_store_begins_at_the_furthest_back(tmp_path: Path) -> None:
    stores = {"x": {"a.b/0": 9, "c/0": 3}, "slow": {"a.b/0": 4, "c/0": 3}, "dropped": {"a.b/0": 1, "c/0": 1}}
    kept = StorePositions(readers=True, identity=IDENTITY, stores=stores, behind=("slow", "dropped"))
    store_positions.write(str(tmp_path), kept)
    reading, behind = for_readers(KAFKA, str(tmp_path), ["x", "slow", "new"])
    assert reading == SourcePositions(
        IDENTITY, {"x": stores["x"], "slow": stores["slow"], "new": {"a.b/0": 4, "c/0": 3}}
    )
    assert behind == ("slow",)
    reading, _ = for_readers(KAFKA, str(tmp_path), ["new"])
    assert reading.stores == {"new": {"a.b/0": 1, "c/0": 1}}, "all others were dropped"


def shards(opened: int = 0, **marks: Mark) -> dict[str, Any]:
    offset = {"arn": "arn:s", "created_ms": 5, "shards": {name: asdict(mark) for name, mark in marks.items()}}
    return offset | ({"opened": opened} if opened else {})


def test_readers_begin_where_batches_of_kinesis_ended_and_where_open_ones_began(tmp_path: Path) -> None:
    checkpoint, mark = Checkpoint(tmp_path), Mark("TRIM_HORIZON", "170", 9, 1000)
    checkpoint.spark(0, shards(x=Mark("AT_TIMESTAMP:77", "150", 3)), committed=False)
    begins = asdict(Mark("AT_TIMESTAMP:77"))
    assert for_readers(KINESIS, checkpoint.place, ["a"]) == (SourcePositions(["arn:s", 5], {"a": {"s/x": begins}}), ())
    checkpoint.spark(0, shards(x=mark))
    assert for_readers(KINESIS, checkpoint.place, ["a"])[0].stores == {"a": {"s/x": asdict(mark)}}
    opened = Mark("TRIM_HORIZON", "190", 12, 2000)
    checkpoint.spark(1, shards(4, x=opened))
    checkpoint.spark(2, shards(5, x=Mark("TRIM_HORIZON", "210", 19, 3000)), committed=False)
    assert for_readers(KINESIS, checkpoint.place, ["a"])[0] == SourcePositions(
        ["arn:s", 5], {"a": {"s/x": asdict(opened)}}
    )


def test_readers_begin_where_the_real_time_mode_and_open_batches_left_off() -> None:
    """By files as a release with those modes wrote them, in names of ours."""
    reading, _ = for_readers(KAFKA, str(FIXTURES / "kafka_real_time"), ["x"])
    everything, mixed = "desk.public.everything", "desk.public.Mixed_Case"
    at = {f"{everything}/0": 12, f"{everything}/1": 9, f"{everything}/2": 14}
    assert reading.stores == {"x": at | {f"{mixed}/0": 2, f"{mixed}/1": 1, f"{mixed}/2": 3}}
    assert reading.identity["topics"].keys() == {everything, mixed}
    desk = KINESIS.model_copy(update={"stream": "desk"})
    reading, _ = for_readers(desk, str(FIXTURES / "kinesis_open"), ["x"])
    first, second = (reading.stores["x"][f"desk/shardId-00000000000{number}"] for number in (0, 1))
    assert (first["sequence"], first["count"]) == ("000000017959168777830000000011", 7)
    assert (second["origin"], second["closed"]) == ("TRIM_HORIZON", False)
    assert reading.identity == ["arn:aws:kinesis:eu-central-1:000000000000:stream/desk", 1795916875000]


@pytest.fixture
def backfills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backfills:
    """The stream holds all but the first three records of a partition."""
    monkeypatch.setattr(start_positions, "holds", lambda _: lambda _partition, position: position >= 3)
    return Backfills(str(tmp_path / "pipeline"))


def test_micro_batches_begin_where_the_store_that_is_furthest_back_stands(tmp_path: Path, backfills: Backfills) -> None:
    checkpoint = Checkpoint(tmp_path / "index")
    checkpoint.kafka()
    checkpoint.spark(8, {"a.b": {"0": 1}})
    where = partial(for_micro_batches, KAFKA, checkpoint.place, ["x", "slow"], backfills=backfills)
    assert where(away=()) == BatchStart(), "nothing but Spark's own"
    moved = {"topics": {"a.b": "nSz3Yw", "c": "made again"}}
    stores = {"x": {"a.b/0": 9, "c/0": 3}, "slow": {"a.b/0": 4, "c/0": 3}}
    store_positions.write(checkpoint.place, StorePositions(readers=True, identity=moved, stores=stores))
    for _ in range(2):  # killed before the first batch, and started again
        assert where(away=()) == BatchStart({"a.b/0": 4, "c/0": 3}, lacking=frozenset({"slow"}))
        left = {file.name for file in checkpoint.folder.iterdir()}
        assert left == {"metadata", "positions.json", "source-identity.json"}
    assert json.loads((checkpoint.folder / "source-identity.json").read_text()) == moved
    checkpoint.spark(0, {"a.b": {"0": 6}, "c": {"0": 3}}, committed=False)
    note_begin(checkpoint.place, ())
    assert where(away=()) == BatchStart()
    checkpoint.spark(0, {"a.b": {"0": 6}, "c": {"0": 3}})
    reading, behind = for_readers(KAFKA, checkpoint.place, ["x", "slow"])
    assert reading == SourcePositions(moved, {name: {"a.b/0": 6, "c/0": 3} for name in ("x", "slow")})
    assert behind == ()
    assert backfills.read() == {}


def test_micro_batches_go_on_without_a_store_and_return_to_its_gap(tmp_path: Path, backfills: Backfills) -> None:
    checkpoint = Checkpoint(tmp_path / "index")
    checkpoint.kafka()
    where = partial(for_micro_batches, KAFKA, checkpoint.place, ["x", "y", "z"], backfills=backfills)
    assert not note_missed(KAFKA, checkpoint.place, {"y"}, None), "nothing was committed that it could go on from"
    assert note_missed(KAFKA, checkpoint.place, {"y"}, {"a.b/0": 4})
    checkpoint.spark(0, {"a.b": {"0": 6}})
    assert note_missed(KAFKA, checkpoint.place, {"y", "z"}, {"a.b/0": 4})
    checkpoint.spark(1, {"a.b": {"0": 9}})
    assert where(away={"y", "z"}) == BatchStart(behind=frozenset({"y", "z"}))
    assert where(away={"z"}) == BatchStart({"a.b/0": 4}, frozenset({"z"}), frozenset({"y"}))
    assert store_positions.read(checkpoint.place) == StorePositions(
        readers=True, identity=IDENTITY, stores={"x": {"a.b/0": 9}, "y": {"a.b/0": 4}, "z": {"a.b/0": 6}}
    )
    checkpoint.spark(0, {"a.b": {"0": 7}}, committed=False)
    note_begin(checkpoint.place, {"z"})
    assert store_positions.read(checkpoint.place) == StorePositions(readers=False, stores={"z": {"a.b/0": 6}})
    assert where(away={"z"}) == BatchStart(behind=frozenset({"z"}))
    dropped = for_micro_batches(KAFKA, checkpoint.place, ["x", "y"], (), backfills)
    assert dropped == BatchStart(), "a store that is configured no more holds nobody up"


def test_what_stream_has_lost_to_store_that_was_missed_is_a_backfill(tmp_path: Path, backfills: Backfills) -> None:
    checkpoint = Checkpoint(tmp_path / "index")
    checkpoint.kafka()
    checkpoint.spark(0, {"a.b": {"0": 2, "1": 5}})
    note_missed(KAFKA, checkpoint.place, {"y"}, None)
    checkpoint.spark(1, {"a.b": {"0": 9, "1": 7}})
    for _ in range(2):  # killed, and started again
        start = for_micro_batches(KAFKA, checkpoint.place, ["x", "y"], (), backfills)
        assert start == BatchStart({"a.b/0": 9, "a.b/1": 5}, lacking=frozenset({"y"}))
        assert backfills.read()["y"].gaps == {"kafka": Gap({"a.b/0": 2}, {"a.b/0": 9})}


def test_recorded_files_begin_again_where_a_store_was_missed(tmp_path: Path, backfills: Backfills) -> None:
    files = _SOURCE.validate_python(
        {"type": "files", "format": "kafka", "envelope": "debezium", "path": ["/data/events.jsonl"]}
    )
    checkpoint = Checkpoint(tmp_path / "index")
    checkpoint.spark(0, {"/data/events.jsonl": 40})
    note_missed(files, checkpoint.place, {"y"}, None)
    checkpoint.spark(1, {"/data/events.jsonl": 90})
    start = for_micro_batches(files, checkpoint.place, ["x", "y"], (), backfills)
    assert start == BatchStart({"/data/events.jsonl": 40}, lacking=frozenset({"y"}))


def test_a_batch_that_was_planned_and_not_committed_is_run_again(tmp_path: Path) -> None:
    assert not is_interrupted(str(tmp_path))
    for folder, name, repeats in (("offsets", "9", True), ("commits", "9", False), ("offsets", "10", True)):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).touch()
        assert is_interrupted(f"{tmp_path}/") is repeats

"""The Kinesis source: a batch run again is the same, no shard's record is lost, what is lost is said."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from aws_kinesis_agg.aggregator import RecordAggregator
from pyspark.sql import DataFrame, SparkSession

import sources
from local_stack.servers.aws import AwsEndpoint, KinesisLocal
from schemas.errors import ConfigurationError, SourceGoneError
from sources.caught_up import FileProbe
from sources.kinesis import source as kinesis_source
from sources.kinesis.client import Page, Stream, ThrottledError
from sources.kinesis.config import KinesisSourceConfig
from sources.kinesis.offsets import TRIM_HORIZON, Offset, at_timestamp
from sources.kinesis.planner import KinesisReader
from sources.loss import source_gone
from tests.servers import create_stream
from tests.waiting import eventually

Batch = tuple[dict[str, Any], dict[str, Any], list[tuple[str, str, bytes]]]


class World:
    """A stream, its writer, and readers of it."""

    def __init__(self, server: AwsEndpoint, shards: int) -> None:
        self.client = server.client("kinesis")
        self.name = create_stream(server, shards)
        endpoint = dict(server.endpoint)
        self.config = KinesisSourceConfig.model_validate(
            {"type": "kinesis", "envelope": "dms", "stream": self.name, "fetch_interval_ms": 20, **endpoint}
        )

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.client.put_record(StreamName=self.name, PartitionKey=f"k{number % 7}", Data=str(number).encode())

    def reader(self, *, origin: str = TRIM_HORIZON, limit: int = 10, stream: Stream | None = None) -> KinesisReader:
        chosen = stream or Stream(self.config.access("checkpoints/land"))
        return KinesisReader(chosen, origin=origin, fetch_interval_ms=20, max_records_per_trigger=limit, drain=True)

    def shards(self) -> list[dict[str, Any]]:
        shards: list[dict[str, Any]] = self.client.list_shards(StreamName=self.name)["Shards"]
        return [s for s in shards if "EndingSequenceNumber" not in s["SequenceNumberRange"]]

    def split(self, shard: dict[str, Any]) -> None:
        low, high = (int(shard["HashKeyRange"][f"{end}HashKey"]) for end in ("Starting", "Ending"))
        middle = str((low + high) // 2)
        self.client.split_shard(StreamName=self.name, ShardToSplit=shard["ShardId"], NewStartingHashKey=middle)
        eventually(self.is_active)

    def merge(self, first: dict[str, Any], second: dict[str, Any]) -> None:
        self.client.merge_shards(
            StreamName=self.name, ShardToMerge=first["ShardId"], AdjacentShardToMerge=second["ShardId"]
        )
        eventually(self.is_active)

    def delete(self) -> None:
        self.client.delete_stream(StreamName=self.name)
        eventually(lambda: not self.exists())

    def exists(self) -> bool:
        try:
            self.client.describe_stream_summary(StreamName=self.name)
        except self.client.exceptions.ResourceNotFoundException:
            return False
        return True

    def is_active(self) -> bool:
        summary = self.client.describe_stream_summary(StreamName=self.name)["StreamDescriptionSummary"]
        return bool(summary["StreamStatus"] == "ACTIVE")


@pytest.fixture
def world(kinesis: KinesisLocal) -> Iterator[World]:
    yield from new_world(kinesis)


def new_world(server: AwsEndpoint) -> Iterator[World]:
    """A stream of two shards that goes with its test: a server has fifty shards for all."""
    world = World(server, 2)
    yield world
    with suppress(world.client.exceptions.ResourceNotFoundException):
        world.client.delete_stream(StreamName=world.name)


def rows(reader: KinesisReader, start: dict[str, Any], end: dict[str, Any]) -> list[tuple[str, str, bytes]]:
    records = []
    for part in reader.partitions(start, end):
        for batch in reader.read(part):
            records += [(row["partition"], row["position"], row["value"]) for row in batch.to_pylist()]
    return sorted(records)


def drain(reader: KinesisReader, start: dict[str, Any] | None = None) -> list[Batch]:
    """Read batch after batch as Spark does, to the end."""
    if start is None:
        start = reader.initialOffset()
    else:
        reader.partitions(start, start)
    batches: list[Batch] = []
    while (end := reader.latestOffset()) != start:
        batches.append((start, end, rows(reader, start, end)))
        reader.commit(start)
        start = end
    reader.stop()
    return batches


def numbers(batches: list[Batch]) -> list[int]:
    return sorted(int(value) for _, _, records in batches for _, _, value in records)


def test_a_batch_run_again_after_a_restart_holds_exactly_the_same_records(world: World) -> None:
    world.put(*range(40))
    batches = drain(world.reader())
    assert numbers(batches) == list(range(40))
    assert all(len(records) <= 10 for _, _, records in batches)
    world.put(*range(40, 60))
    for start, end, records in batches:
        assert rows(world.reader(), start, end) == records
    assert numbers(drain(world.reader(), batches[-1][1])) == list(range(40, 60))


def test_shards_that_split_merge_and_close_lose_nothing_and_parents_come_first(world: World) -> None:
    world.put(*range(20))
    before = drain(world.reader())
    world.put(*range(20, 30))
    world.split(world.shards()[0])
    world.put(*range(30, 50))
    world.merge(*world.shards()[1:3])
    world.put(*range(50, 70))
    after = drain(world.reader(), before[-1][1])
    assert numbers(after) == list(range(20, 70))
    closed: set[str] = set()
    parents = {shard_id: shard.parents for shard_id, shard in Stream(world.config.access()).shards().items()}
    for start, end, records in after:
        for shard_id, _, _ in records:
            assert set(parents[shard_id]) <= closed
        closed |= {shard_id for shard_id, mark in Offset.from_json(end).shards.items() if mark.closed}
        assert rows(world.reader(), start, end) == records
    assert numbers(drain(world.reader())) == list(range(70))


def test_latest_begins_at_the_time_it_was_first_asked(world: World) -> None:
    world.put(1, 2)
    second = int(time.time())
    eventually(lambda: int(time.time()) > second)  # times travel in whole seconds
    reader = world.reader(origin=at_timestamp(int(time.time() * 1000)))
    start = reader.initialOffset()
    world.put(3, 4)
    assert numbers(drain(world.reader(), start)) == [3, 4]


def test_an_aggregated_record_is_taken_apart_and_a_damaged_one_passed_on(world: World) -> None:
    aggregator = RecordAggregator()
    for number in range(3):
        aggregator.add_user_record(f"key{number}", str(number).encode())
    key, _, data = aggregator.clear_and_get().get_contents()
    for sent in (data, data[:-1] + bytes([data[-1] ^ 1])):
        world.client.put_record(StreamName=world.name, PartitionKey=key, Data=sent)
    records = [row for _, _, batch in drain(world.reader()) for row in batch]
    assert sorted(value for _, position, value in records if ":" in position) == [b"0", b"1", b"2"]
    assert sorted(position.partition(":")[2] for _, position, _ in records) == ["", "0", "1", "2"]
    assert [value for _, position, value in records if ":" not in position] == [data[:-1] + bytes([data[-1] ^ 1])]


class Throttled(Stream):
    """A stream that refuses every other read."""

    calls = 0

    def fetch(self, shard_id: str, iterator: str, limit: int = 10_000) -> Page:
        self.calls += 1
        if self.calls % 2:
            raise ThrottledError("too much")
        return super().fetch(shard_id, iterator, limit)


def test_a_throttled_reader_slows_down_and_loses_nothing(world: World) -> None:
    world.put(*range(20))
    reader = world.reader(stream=Throttled(world.config.access()))
    assert numbers(drain(reader)) == list(range(20))


def test_a_stream_that_was_made_again_stops_the_job(world: World) -> None:
    world.put(1)
    end = drain(world.reader())[-1][1]
    world.delete()
    with pytest.raises(SourceGoneError, match="no longer exists"):
        drain(world.reader(), end)
    world.client.create_stream(StreamName=world.name, ShardCount=2)
    eventually(world.is_active)
    with pytest.raises(SourceGoneError, match="made again") as caught:
        drain(world.reader(), end)
    assert "move checkpoints/land away" in str(caught.value)


def test_position_older_than_retention_stops_job_unless_its_record_is_still_there(world: World) -> None:
    world.put(1, 2, 3)
    end = drain(world.reader())[-1][1]
    for mark in end["shards"].values():
        mark["seen_ms"] -= 2 * 86_400_000
    assert (
        numbers(drain(world.reader(), {**end, "shards": {i: m for i, m in end["shards"].items() if m["sequence"]}}))
        == []
    )
    unread = {shard_id: mark | {"sequence": "", "count": 0} for shard_id, mark in end["shards"].items()}
    with pytest.raises(SourceGoneError, match="longer than its retention"):
        drain(world.reader(), end | {"shards": unread})


def test_an_uncommitted_first_batch_starts_where_it_did_before(world: World) -> None:
    began = at_timestamp(int(time.time() * 1000) - 60_000)
    world.put(*range(10))
    start, end, records = drain(world.reader(origin=began))[0]
    again = world.reader(origin=at_timestamp(int(time.time() * 1000) + 60_000))  # `latest`, asked later
    assert again.partitions(end, end) == []
    begin = again.initialOffset()
    assert all(mark["count"] == 0 for mark in begin["shards"].values())
    assert rows(again, begin, end) == records
    assert rows(again, start, end) == records


def test_a_batch_whose_records_have_expired_is_not_run_short(world: World) -> None:
    world.put(*range(10))
    start, end, _ = drain(world.reader())[0]
    for mark in end["shards"].values():
        mark["count"] += 1 if mark["count"] else 0
    with pytest.raises(SourceGoneError, match="no longer holds"):
        rows(world.reader(), start, end)


def test_it_is_noted_up_to_when_everything_was_processed_and_only_then(world: World) -> None:
    world.put(*range(5))
    probe, began_us = FileProbe(), time.time_ns() // 1000
    access = world.config.access("checkpoints/index")
    reader = KinesisReader(
        Stream(access), origin=TRIM_HORIZON, fetch_interval_ms=20, max_records_per_trigger=2, drain=False,
        probe_file=probe.path,
    )  # fmt: skip
    start, count = reader.initialOffset(), 0
    while count < 5:
        assert not any((probe.caught_up_us() or {}).values())
        end = reader.latestOffset()
        count += len(rows(reader, start, end))
        start = end
    eventually(lambda: reader.latestOffset() == start and all((probe.caught_up_us() or {"": 0}).values()))
    reader.stop()
    caught_up_us = (probe.caught_up_us() or {}).values()
    assert began_us < min(caught_up_us) <= max(caught_up_us) <= time.time_ns() // 1000


def test_check_says_what_is_wrong(world: World) -> None:
    kinesis_source.check(world.config)
    with pytest.raises(ConfigurationError, match="no longer exists"):
        kinesis_source.check(world.config.model_copy(update={"stream": "nothing"}))
    with pytest.raises(ConfigurationError, match="does not answer"):
        kinesis_source.check(world.config.model_copy(update={"endpoint_url": "http://127.0.0.1:1"}))


def test_spark_reads_drains_and_runs_an_uncommitted_batch_again(
    spark: SparkSession, world: World, tmp_path: Path
) -> None:
    seen: dict[int, list[list[int]]] = {}

    def keep(frame: DataFrame, batch: int) -> None:
        seen.setdefault(batch, []).append(sorted(int(row.value) for row in frame.select("value").collect()))

    def run() -> None:
        frame = sources.read_stream(spark, world.config, str(tmp_path), drain=True)
        query = frame.writeStream.option("checkpointLocation", str(tmp_path / "q")).foreachBatch(keep).start()
        query.processAllAvailable()
        query.stop()

    world.put(*range(10))
    run()
    assert sorted(chain.from_iterable(runs[0] for runs in seen.values())) == list(range(10))
    last = max(seen)
    (tmp_path / "q" / "commits" / str(last)).unlink()
    world.put(10, 11)
    run()
    assert seen[last][0] == seen[last][1]
    assert sorted(chain.from_iterable(runs[0] for runs in seen.values())) == list(range(12))
    world.delete()
    with pytest.raises(Exception, match="SourceGoneError") as caught:
        run()
    gone = source_gone(caught.value, str(tmp_path))
    assert gone is not None
    assert "no longer exists" in gone.message


def test_open_batch_of_before_readers_holds_nothing_and_its_records_come_next(world: World) -> None:
    world.put(*range(10))
    batches = drain(world.reader())
    end = batches[-1][1]
    world.put(*range(10, 15))
    opened = end | {"opened": 4}  # planned and never committed
    reader = world.reader(limit=4)
    assert rows(reader, end, opened) == []
    assert numbers(drain(world.reader(limit=4), opened)) == list(range(10, 15))

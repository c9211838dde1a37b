"""The feed of a Kinesis source: records as they come, in the order of their keys, and again from any position."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import psutil
import pytest
from aws_kinesis_agg.aggregator import RecordAggregator

from local_stack.faults.aws import AwsFaultProxy
from local_stack.faults.tcp import FaultProxy
from local_stack.servers.aws import KinesisLocal
from schemas.errors import SourceGoneError
from schemas.records import Record
from sources import positions
from sources.feeds import MAX_RECORDS, Feed, Fetched, Positions, SourcePositions, open_feed, refreshed
from sources.kinesis import feed as kinesis_feed
from sources.kinesis.config import KinesisSourceConfig
from sources.kinesis.feed import KinesisFeed
from sources.retained import holds
from tests.integration.test_kinesis_source import World, drain, new_world, numbers
from tests.waiting import eventually

CHECKPOINT = "checkpoints/index_kinesis"
NEW = SourcePositions(None, {"one": {}})


@pytest.fixture
def world(kinesis: KinesisLocal) -> Iterator[World]:
    yield from new_world(kinesis)


class Reader:
    """Follows what there is to read and keeps what came, as a long-lived reader does."""

    def __init__(self, config: KinesisSourceConfig, starts: Positions) -> None:
        self.feed: Feed = open_feed(config, CHECKPOINT)
        self.feed.follow(starts)
        self.positions: dict[str, Any] = dict(starts)
        self.records: list[Record] = []

    def fetch(self, seconds: float = 0.2) -> int:
        """How many records came."""
        return len(self.next(seconds).records)

    def next(self, seconds: float) -> Fetched:
        fetched = self.feed.fetch(seconds)
        self.records += fetched.records
        self.positions |= fetched.reached
        return fetched

    def until(self, wanted: int) -> list[int]:
        """Fetch until so many have come in all; their numbers in the order in which they came."""
        eventually(lambda: self.fetch() >= 0 and len(self.records) >= wanted)
        return self.values

    @property
    def values(self) -> list[int]:
        return [int(record.value or b"") for record in self.records]


@contextmanager
def reading(config: KinesisSourceConfig, starts: Positions | None = None) -> Iterator[Reader]:
    reader = Reader(config, refreshed(config, CHECKPOINT, NEW).stores["one"] if starts is None else starts)
    try:
        yield reader
    finally:
        reader.feed.close()
        if config.consumer is None:
            eventually(lambda: not reading_threads())


def reading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("kinesis-")]


def through(world: World, port: int) -> KinesisSourceConfig:
    return world.config.model_copy(update={"endpoint_url": f"http://127.0.0.1:{port}"})


def test_records_come_while_a_reader_follows_and_from_any_position_again(world: World) -> None:
    with reading(world.config) as reader:
        assert reader.next(0.1) == Fetched([], {})
        world.put(*range(20))
        assert sorted(reader.until(20)) == list(range(20))
        middle = dict(reader.positions)
        later = threading.Timer(0.2, world.put, [20])
        later.start()
        assert [record.value for record in reader.next(3600).records] == [
            b"20"
        ]  # it waits for the first, and no longer
        world.put(*range(21, 30))
        reader.until(30)
        end = dict(reader.positions)
    with reading(world.config, middle) as again:
        assert sorted(again.until(10)) == list(range(20, 30))
        assert {name: positions.as_number(mark) for name, mark in again.positions.items()} == {
            name: positions.as_number(mark) for name, mark in end.items()
        }
    with reading(world.config, end) as again:
        assert again.next(0.3) == Fetched([], {})


def test_it_knows_when_a_shard_held_no_more_than_it_gave_out(world: World) -> None:
    began_us = time.time_ns() // 1000
    with reading(world.config) as reader:
        assert set(reader.feed.caught_up_us().values()) == {0}
        world.put(*range(7))
        eventually(
            lambda: sum(mark["count"] for mark in reader.positions.values()) == 0 and reader.feed.fetch(0).records
        )
        eventually(lambda: reader.fetch() >= 0 and all(reader.feed.caught_up_us().values()))
        empty = reader.feed.caught_up_us()
        assert set(empty) == set(reader.positions)
        assert all(began_us < at < time.time_ns() // 1000 for at in empty.values())
        eventually(
            lambda: reader.fetch() >= 0 and all(reader.feed.caught_up_us()[name] > at for name, at in empty.items())
        )
        before = len(reader.records)
        world.put(*range(7, 14))
        # Both shards are read ahead, and nothing of it was given out.
        eventually(lambda: set(reader.feed.caught_up_us().values()) == {0})
        reader.until(before + 7)
        assert {f"{world.name}/{record.partition}" for record in reader.records[before:]} == set(empty)


def test_shards_that_split_and_merge_lose_nothing_and_key_stays_in_order(world: World) -> None:
    fast, slow = dict[str, Any](), dict[str, Any]()
    state = refreshed(world.config, CHECKPOINT, SourcePositions(None, {"fast": fast, "slow": slow}))
    slow = state.stores["slow"]
    with reading(world.config, state.stores["fast"]) as reader:
        world.put(*range(20))
        reader.until(20)
        world.split(world.shards()[0])
        world.put(*range(20, 40))
        world.merge(*world.shards()[1:3])
        world.put(*range(40, 60))

        def followed() -> bool:
            nonlocal state
            if any(mark["closed"] for mark in reader.next(0.2).reached.values()):
                state = refreshed(
                    world.config, CHECKPOINT, state._replace(stores={"fast": reader.positions, "slow": slow})
                )
                reader.positions = dict(state.stores["fast"])
                reader.feed.follow(reader.positions)
            return len(reader.records) >= 60

        eventually(followed)
        values = reader.values
    assert sorted(values) == list(range(60))
    for key in range(7):
        assert [number for number in values if number % 7 == key] == list(range(key, 60, 7))
    closed = {name for name, mark in reader.positions.items() if mark["closed"]}
    assert len(closed) == 3  # both shards of the beginning, and one of the two that came of the split
    assert state.stores["slow"] == slow  # its parents are not read to their end yet
    assert all(positions.earlier(slow[name], reader.positions[name]) == slow[name] for name in slow)
    assert refreshed(world.config, CHECKPOINT, state) == state


def test_aggregated_records_come_apart_and_their_position_lies_behind_them_all(world: World) -> None:
    aggregator = RecordAggregator()
    for number in range(600):
        aggregator.add_user_record("k", str(number).encode())
    key, _, data = aggregator.clear_and_get().get_contents()
    world.client.put_record(StreamName=world.name, PartitionKey=key, Data=data)
    world.client.put_record(StreamName=world.name, PartitionKey=key, Data=b"600")
    with reading(world.config) as reader:
        assert reader.until(601) == list(range(601))
        assert [record.position.partition(":")[2] for record in reader.records[:2]] == ["0", "1"]
        end = dict(reader.positions)
    world.client.put_record(StreamName=world.name, PartitionKey=key, Data=b"601")
    with reading(world.config, end) as again:
        assert again.until(1) == [601]


def test_one_fetch_returns_no_more_than_it_may(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with reading(world.config) as reader:
        put_many(world, [str(number).encode() for number in range(500)])
        put_many(world, [b"500"] * 200)
        sizes: list[int] = []
        while len(reader.records) < 700:
            sizes.append(reader.fetch())
        assert max(sizes) <= MAX_RECORDS
        monkeypatch.setattr(kinesis_feed, "MAX_BYTES", 40_000)
        put_many(world, [b"1" * 9_000] * 5)
        eventually(lambda: cast("KinesisFeed", reader.feed)._ahead._bytes == 5 * 9_000)
        assert [reader.fetch(), reader.fetch()] == [4, 1]


def put_many(world: World, values: list[bytes]) -> None:
    records = [{"PartitionKey": "k", "Data": value} for value in values]
    assert world.client.put_records(StreamName=world.name, Records=records)["FailedRecordCount"] == 0


def test_an_iterator_that_expired_and_a_throttle_lose_and_double_nothing(world: World) -> None:
    with AwsFaultProxy(str(world.config.endpoint_url)) as proxy, reading(through(world, proxy.port)) as reader:
        world.put(*range(10))
        reader.until(10)
        proxy.expire_iterators(4)
        world.put(*range(10, 20))
        reader.until(20)
        proxy.throttle("GetRecords", 6)
        world.put(*range(20, 30))
        assert sorted(reader.until(30)) == list(range(30))
        assert reader.feed.away is None


def test_an_endpoint_that_is_away_is_named_and_read_once_it_returns(world: World) -> None:
    with FaultProxy(int(str(world.config.endpoint_url).rpartition(":")[2])) as proxy:
        starts = refreshed(world.config, CHECKPOINT, NEW).stores["one"]
        proxy.refuse()
        with reading(through(world, proxy.port), starts) as reader:
            eventually(lambda: reader.fetch() == 0 and reader.feed.away)
            assert "does not answer" in str(reader.feed.away)
            proxy.heal()
            world.put(*range(5))
            reader.until(5)
            proxy.refuse()
            world.put(*range(5, 10))
            eventually(lambda: reader.fetch() == 0 and reader.feed.away)
            known = reader.feed.caught_up_us()
            assert reader.next(0.5) == Fetched([], {})
            assert reader.feed.caught_up_us() == known
            proxy.heal()
            assert sorted(reader.until(10)) == list(range(10))
            eventually(lambda: reader.feed.away is None)


def test_a_stream_that_was_deleted_or_made_again_stops_feed_and_driver(world: World) -> None:
    world.put(1)
    state = refreshed(world.config, CHECKPOINT, NEW)
    with reading(world.config, state.stores["one"]) as reader:
        reader.until(1)
        world.client.delete_stream(StreamName=world.name)
        with pytest.raises(SourceGoneError, match="no longer exists"):
            eventually(lambda: reader.fetch() < 0)
    eventually(lambda: not world.exists())
    with pytest.raises(SourceGoneError, match="no longer exists") as caught:
        refreshed(world.config, CHECKPOINT, state)
    assert f"move {CHECKPOINT} away" in caught.value.hint
    world.client.create_stream(StreamName=world.name, ShardCount=2)
    eventually(world.is_active)
    with pytest.raises(SourceGoneError, match="made again") as caught:
        refreshed(world.config, CHECKPOINT, state)
    assert f"move {CHECKPOINT} away" in caught.value.hint


def test_position_that_has_expired_is_said_unless_its_record_is_still_there(world: World) -> None:
    world.put(*range(7))
    with reading(world.config) as reader:
        reader.until(7)
        old = {name: mark | {"seen_ms": mark["seen_ms"] - 2 * 86_400_000} for name, mark in reader.positions.items()}
    with reading(world.config, {name: mark for name, mark in old.items() if mark["sequence"]}) as reader:
        assert reader.fetch(0.3) == 0
    unread = {name: mark | {"sequence": "", "count": 0} for name, mark in old.items()}
    with reading(world.config, unread) as reader, pytest.raises(SourceGoneError, match="longer than its retention"):
        reader.fetch(10)
    is_held = holds(world.config)
    assert [is_held(name, mark) for name, mark in old.items() if mark["sequence"]] != []
    assert all(is_held(name, mark) for name, mark in old.items() if mark["sequence"])
    assert not any(is_held(name, mark) for name, mark in unread.items())
    assert all(is_held(name, mark | {"closed": True}) for name, mark in unread.items()), "nothing is to be read of it"


def test_positions_go_to_a_plain_stream_and_back(world: World) -> None:
    world.put(*range(10))
    world.split(world.shards()[0])
    with reading(world.config) as reader:
        reader.until(10)
        eventually(lambda: reader.fetch() >= 0 and any(mark["closed"] for mark in reader.positions.values()))
        starts = dict(reader.positions)
    world.put(*range(10, 20))
    access = {"origin": "TRIM_HORIZON", "fetch_interval_ms": 20, "max_records_per_trigger": 10, "drain": True}
    plain = world.reader()
    plain = type(plain)(plain._stream, starts=starts, **access)  # type: ignore[arg-type]
    batches = drain(plain)
    assert numbers(batches) == list(range(10, 20))
    # Run again after a kill, without the starts: the first batch's end says where it began.
    start, end, records = batches[0]
    restarted = world.reader()
    restarted.partitions(end, end)
    again = [
        (row["partition"], row["position"], row["value"])
        for part in restarted.partitions(restarted.initialOffset(), end)
        for batch in restarted.read(part)
        for row in batch.to_pylist()
    ]
    assert sorted(again) == records
    back = positions.positions_in(world.config, batches[-1][1])
    state = refreshed(world.config, CHECKPOINT, SourcePositions(None, {"one": back}))
    world.put(20)
    with reading(world.config, state.stores["one"]) as reader:
        assert reader.until(1) == [20]
    opened = positions.positions_in(world.config, start | {"opened": 3})
    with reading(world.config, opened) as reader:
        assert sorted(reader.until(11)) == list(range(10, 21))


def test_nothing_remains_of_shards_left_and_feeds_closed(world: World) -> None:
    world.put(*range(7))
    starts = refreshed(world.config, CHECKPOINT, NEW).stores["one"]

    def connections() -> int:
        eventually(lambda: not reading_threads())
        gc.collect()  # those of the tests before
        port = int(str(world.config.endpoint_url).rpartition(":")[2])
        return sum(bool(made.raddr) and made.raddr.port == port for made in psutil.Process().net_connections())

    with reading(world.config, starts) as reader:
        reader.until(7)
    before = connections()
    for _ in range(3):
        feed = KinesisFeed(world.config.access(CHECKPOINT), 20)
        for _ in range(2):
            feed.follow(starts)
            eventually(lambda feed=feed: feed.fetch(1).records)  # type: ignore[misc]
            feed.leave(starts)
            assert feed.fetch(0) == Fetched([], {})
            assert feed._ahead._bytes == 0
        feed.follow(starts)
        feed.close()
        assert feed.fetch(10) == Fetched([], {})  # at once
        del feed  # a call that began while it was closed leaves its connection to the garbage collector
    assert connections() <= before

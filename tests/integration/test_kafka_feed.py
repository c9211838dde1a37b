"""Kafka's feed on a real broker: every record once, in order, past what was aborted; what is lost and who is away is said."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from confluent_kafka import TopicPartition

from local_stack.servers.kafka import Broker
from local_stack.stack import Stack
from schemas.errors import SourceGoneError
from schemas.records import Record
from sources.feeds import Feed, Position, SourcePositions, open_feed, refreshed
from sources.kafka import broker
from sources.kafka import feed as feed_module
from sources.kafka.config import KafkaSourceConfig
from tests.waiting import eventually

NOTHING = SourcePositions(None, {"a": {}})


@pytest.fixture(autouse=True)
def soon_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no broker knows is believed to be gone after a second."""
    monkeypatch.setattr(broker, "GONE_S", 1.0)


def config_for(broker: Broker, *topics: str, **more: object) -> KafkaSourceConfig:
    members = {"type": "kafka", "envelope": "debezium", "bootstrap_servers": broker.endpoint["bootstrap_servers"]}
    return KafkaSourceConfig.model_validate(members | ({"topics": list(topics)} if topics else {}) | more)


@pytest.fixture
def opened() -> Iterator[Callable[..., Feed]]:
    """Open a feed that is closed after the test: `opened(config, positions)`."""
    feeds: list[Feed] = []

    def follow(config: KafkaSourceConfig, positions: dict[str, Position]) -> Feed:
        feeds.append(open_feed(config, "/checkpoint"))
        feeds[-1].follow(positions)
        return feeds[-1]

    yield follow
    for feed in feeds:
        feed.close()


def take(feed: Feed, count: int, seconds: float = 20.0) -> tuple[list[Record], dict[str, Position]]:
    """Fetch until so many records came."""
    records: list[Record] = []
    reached: dict[str, Position] = {}

    def came() -> bool:
        fetched = feed.fetch(0.1)
        records.extend(fetched.records)
        reached.update(fetched.reached)
        return len(records) >= count

    eventually(came, seconds)
    return records, reached


def wait_for(feed: Feed, met: Callable[[], bool], seconds: float = 20.0) -> None:
    """Fetch until something holds; no record may come."""
    eventually(lambda: feed.fetch(0.05).records == [] and met(), seconds)


def fetch_nothing(feed: Feed, times: int) -> None:
    """Go on fetching; no record may come."""
    assert [record for _ in range(times) for record in feed.fetch(0.05).records] == []


def write(broker: Broker, topic: str, *values: bytes, partition: int = 0, **settings: str) -> None:
    producer = broker.producer(**settings)
    for value in values:
        producer.produce(topic, value, b"k", partition, headers=[("h", b"x"), ("none", None)])
    assert producer.flush(30) == 0


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_a_record_comes_as_it_was_written(
    kafka: Broker, new_topic: Callable[..., str], opened: Callable[..., Feed], codec: str
) -> None:
    topic = new_topic(1)
    write(kafka, topic, b"1" * 5000, b"2" * 5000, compression_type=codec)
    records, reached = take(opened(config_for(kafka, topic), {f"{topic}/0": 0}), 2)
    first = records[0]
    assert (first.stream, first.partition, first.position, first.key, first.value) == (
        topic,
        "0",
        "0",
        b"k",
        b"1" * 5000,
    )
    assert first.headers == (("h", b"x"), ("none", None))
    assert abs((first.timestamp_ms or 0) / 1000 - time.time()) < 60
    assert ([record.position for record in records], reached) == (["0", "1"], {f"{topic}/0": 2})


def test_an_aborted_record_never_comes_and_the_position_moves_past_it(
    kafka: Broker, new_topic: Callable[..., str], opened: Callable[..., Feed]
) -> None:
    topic = new_topic(1)
    place = f"{topic}/0"
    producer = kafka.producer(transactional_id=topic)
    producer.init_transactions()
    for value, end in ((b"kept", producer.commit_transaction), (b"dropped", producer.abort_transaction)):
        producer.begin_transaction()
        producer.produce(topic, value)
        producer.flush()
        end()
    feed = opened(config_for(kafka, topic), {place: 0})
    records, reached = take(feed, 1)
    while reached[place] < 4:  # two records, two markers
        fetched = feed.fetch(0.1)
        records += fetched.records
        reached |= fetched.reached
    assert [record.value for record in records] == [b"kept"]
    producer.begin_transaction()
    producer.produce(topic, b"open")
    producer.flush()
    asked_us = time.time_ns() // 1000
    wait_for(feed, lambda: feed.caught_up_us()[place] > asked_us)
    producer.commit_transaction()
    assert take(feed, 1)[0][0].value == b"open"


def test_a_partition_that_its_client_stopped_fetching_is_read_by_another_client(
    kafka: Broker, new_topic: Callable[..., str], opened: Callable[..., Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A paused partition stands for one that librdkafka has stopped fetching: no record, no error."""
    monkeypatch.setattr(feed_module, "_STALL_S", 1.0)
    topic = new_topic(2)
    stalled, other = f"{topic}/0", f"{topic}/1"
    feed = cast("feed_module.KafkaFeed", opened(config_for(kafka, topic), {stalled: 0, other: 0}))
    for number in range(2):
        write(kafka, topic, b"1", partition=0)
        assert take(feed, 1)[1][stalled] == 3 * number + 1
        first = feed._consumer
        first.pause([TopicPartition(topic, 0)])
        write(kafka, topic, b"2", b"3", partition=0)
        write(kafka, topic, b"1", partition=1)
        assert take(feed, 1)[1] == {other: number + 1}
        wait_for(feed, lambda client=first: feed._consumer is not client)  # type: ignore[misc]
        servers = kafka.endpoint["bootstrap_servers"]
        assert feed.away == f"Kafka at {servers} does not give the next records of {stalled} (nothing came for 1 s)."
        records, reached = take(feed, 2)
        assert ([record.value for record in records], reached[stalled]) == ([b"2", b"3"], 3 * number + 3)
        assert str(feed.away) == "None"


def test_records_larger_than_any_limit_come_one_by_one(
    kafka: Broker, new_topic: Callable[..., str], opened: Callable[..., Feed]
) -> None:
    topic = new_topic(1, max_message_bytes=str(32 * 1024 * 1024))
    values = [os.urandom(12 * 1024 * 1024) for _ in range(3)]
    write(kafka, topic, *values)
    feed = opened(config_for(kafka, topic), {f"{topic}/0": 0})
    sizes: list[int] = []
    got: list[bytes | None] = []

    def came() -> bool:
        fetched = feed.fetch(0.5)
        sizes.append(len(fetched.records))
        got.extend(record.value for record in fetched.records)
        return len(got) >= len(values)

    assert eventually(came)
    assert got == values
    assert max(sizes) == 1


def test_two_hundred_partitions_are_followed_left_and_caught_up_with(
    kafka: Broker, new_topic: Callable[..., str], opened: Callable[..., Feed]
) -> None:
    topic = new_topic(200)
    config = config_for(kafka, topic)
    producer = kafka.producer()
    for number in range(200):
        for value in (b"1", b"2", b"3"):
            producer.produce(topic, value, partition=number)
    assert producer.flush(30) == 0
    reading = refreshed(config, "/checkpoint", NOTHING)
    assert len(reading.stores["a"]) == 200
    feed = opened(config, reading.stores["a"])
    records, reached = take(feed, 600)
    assert len({(record.partition, record.position) for record in records}) == 600
    assert reached == {f"{topic}/{number}": 3 for number in range(200)}
    wait_for(feed, lambda: len(feed.caught_up_us()) == 200 and all(feed.caught_up_us().values()))
    feed.leave([f"{topic}/{number}" for number in range(199)])
    write(kafka, topic, b"left", partition=0)
    write(kafka, topic, b"kept", partition=199)
    assert [record.value for record in take(feed, 1)[0]] == [b"kept"]
    wait_for(feed, lambda: list(feed.caught_up_us()) == [f"{topic}/199"])
    feed.follow({f"{topic}/0": 3})
    assert [record.value for record in take(feed, 1)[0]] == [b"left"]


def test_partitions_that_are_added_are_read_from_their_first_record(
    kafka: Broker, new_topic: Callable[..., str], opened: Callable[..., Feed]
) -> None:
    topic = new_topic(1)
    config = config_for(kafka, topic, starting="latest")
    write(kafka, topic, b"before")
    reading = refreshed(config, "/c", NOTHING)
    feed = opened(config, reading.stores["a"])
    kafka.add_partitions(topic, 3)
    write(kafka, topic, b"first", partition=2)
    grown = refreshed(config, "/c", reading)
    assert grown.stores == {"a": {f"{topic}/0": 1, f"{topic}/1": 0, f"{topic}/2": 0}}
    assert grown.identity == reading.identity
    feed.follow(grown.stores["a"])
    assert [(record.partition, record.value) for record in take(feed, 1)[0]] == [("2", b"first")]
    write(kafka, topic, b"after", partition=0)
    assert [(record.partition, record.value) for record in take(feed, 1)[0]] == [("0", b"after")]
    feed.follow({f"{topic}/3": 0})
    wait_for(feed, lambda: feed.away is not None)  # its broker does not know the partition yet
    kafka.add_partitions(topic, 4)
    write(kafka, topic, b"late", partition=3)
    assert [(record.partition, record.value) for record in take(feed, 1, 8.0)[0]] == [("3", b"late")]
    wait_for(feed, lambda: len(feed.caught_up_us()) == 4 and all(feed.caught_up_us().values()))


def test_what_there_is_to_read_goes_with_the_topics(kafka: Broker, new_topic: Callable[..., str]) -> None:
    first, second = new_topic(1), new_topic(1)
    write(kafka, first, b"1", b"2")
    latest = config_for(kafka, first, starting="latest")
    reading = refreshed(latest, "/c", NOTHING)
    assert reading.stores == {"a": {f"{first}/0": 2}}
    assert refreshed(latest, "/c", reading) == reading
    write(kafka, second, b"1", b"2", b"3")
    kafka.expire(second, 0, 1)
    both = config_for(kafka, topics_pattern=f"{first}|{second}", starting="latest")
    reading = refreshed(both, "/c", reading._replace(stores=reading.stores | {"b": {}}))
    assert reading.stores == {"a": {f"{first}/0": 2, f"{second}/0": 1}, "b": {f"{first}/0": 2, f"{second}/0": 3}}
    only = refreshed(config_for(kafka, second), "/c", reading)
    assert (only.stores["a"], list(only.identity["topics"])) == ({f"{second}/0": 1}, [second])
    kafka.delete_topic(second)
    with pytest.raises(SourceGoneError, match="is gone") as caught:
        refreshed(config_for(kafka, first, second), "/c", reading)
    assert "move /c away" in str(caught.value)
    kafka.create_topic(second)
    with pytest.raises(SourceGoneError, match="was made again"):
        refreshed(both, "/c", reading)


def test_what_the_topic_has_lost_stops_the_feed(
    kafka: Broker, new_topic: Callable[..., str], opened: Callable[..., Feed]
) -> None:
    topic = new_topic(1)
    place, config = f"{topic}/0", config_for(kafka, topic)
    write(kafka, topic, b"1", b"2", b"3")
    kafka.expire(topic, 0, 2)
    for offset in (1, 9):
        with pytest.raises(SourceGoneError, match="no longer holds") as caught:
            take(opened(config, {place: offset}), 1)
        assert caught.value.condition == "SOURCE_OFFSETS_GONE"
        assert "move /checkpoint away" in caught.value.hint
    feed = opened(config, {place: 2})
    take(feed, 1)
    kafka.delete_topic(topic)
    with pytest.raises(SourceGoneError, match="is gone"):
        take(feed, 1)
    with pytest.raises(SourceGoneError, match="is gone"):
        take(opened(config, {place: 2}), 1)


def test_a_frozen_or_killed_broker_is_away_and_nothing_is_claimed_meanwhile(local_stack: Stack) -> None:
    broker = Broker(local_stack.directory / "kafka-that-fails")
    broker.start()
    try:
        broker.create_topic("t")
        write(broker, "t", b"1")
        feed = open_feed(config_for(broker, "t"), "/checkpoint")
        feed.follow({"t/0": 0})
        take(feed, 1)
        wait_for(feed, lambda: feed.caught_up_us()["t/0"] > 0)
        for hurt, mend in ((broker.pause, broker.resume), (broker.kill, broker.start)):
            assert feed.away is None
            hurt()
            hurt_us = time.time_ns() // 1000
            wait_for(feed, lambda: feed.away is not None)
            fetch_nothing(feed, 30)
            assert 0 < feed.caught_up_us()["t/0"] <= hurt_us
            mend()
            write(broker, "t", b"2")
            assert take(feed, 1)[0][0].value == b"2"
            wait_for(feed, lambda: feed.away is None and feed.caught_up_us()["t/0"] > 0)
            assert feed.caught_up_us()["t/0"] > hurt_us
        feed.close()
        assert feed.fetch(0.1).records == []
    finally:
        broker.remove()

"""What a feed makes of rare answers, which no server gives when a test wants them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
from botocore.exceptions import ConnectTimeoutError, MetadataRetrievalError
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from schemas.errors import ConfigurationError, PipelineError, SourceGoneError, UnavailableError
from sources.kafka import topic_identity
from sources.kafka.admin import AdminRequests
from sources.kafka.broker import Topic
from sources.kafka.client import Brokers
from sources.kafka.config import KafkaSourceConfig
from sources.kafka.feed import KafkaFeed
from sources.kafka.source import topics_there
from sources.kafka.topic_identity import unchanged_topics
from sources.kinesis import read_ahead
from sources.kinesis.client import IteratorError, Page, Stream, Summary
from sources.kinesis.config import Access
from sources.kinesis.fan_out import Consumer
from sources.kinesis.offsets import TRIM_HORIZON, Identity, Mark
from sources.kinesis.read_ahead import PAGE_BYTES, ReadAhead
from tests.waiting import eventually

HOUR_MS = 3_600_000


class Client:
    """Hands out what was put into it, of partitions that are assigned."""

    def __init__(self, *messages: Message) -> None:
        self.messages = deque(messages)
        self.assigned: dict[str, int] = {}

    def incremental_assign(self, places: list[TopicPartition]) -> None:
        for at in places:
            assert at.topic not in self.assigned
            self.assigned[at.topic] = at.offset

    def incremental_unassign(self, places: list[TopicPartition]) -> None:
        for at in places:
            del self.assigned[at.topic]

    def poll(self, _: float) -> Message | None:
        return self.messages.popleft() if self.messages else None

    def consume(self, number: int, _: float) -> list[Message]:
        return [self.messages.popleft() for _ in range(min(number, len(self.messages)))]

    def close(self) -> None:
        self.assigned.clear()


def record(topic: str, offset: int) -> Message:
    return Message(topic=topic, partition=0, offset=offset, value=b"{}")


def damaged(topic: str, offset: int) -> Message:
    return Message(topic=topic, partition=0, offset=offset, error=KafkaError(KafkaError._BAD_MSG))


def reached_and_away(feed: KafkaFeed) -> tuple[dict[str, Any], str | None]:
    return feed.fetch(0).reached, feed.away


def test_records_behind_one_that_cannot_be_read_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client tells of a batch whose checksum is wrong, and goes on behind it (`rd_kafka_msgset_reader_v2`)."""
    monkeypatch.setattr("sources.kafka.feed._AGAIN_S", 0.0)
    config = {"type": "kafka", "envelope": "debezium", "bootstrap_servers": "127.0.0.1:1", "topics": ["a", "b"]}
    feed = KafkaFeed(KafkaSourceConfig.model_validate(config), "checkpoint")
    monkeypatch.setattr(feed._ends, "ask", lambda _: None)
    client = Client(record("a", 5), damaged("a", 6), record("a", 7), record("b", 0), record("a", 8))
    monkeypatch.setattr(feed, "_consumer", client)
    feed.follow({"a/0": 5, "b/0": 0})
    assert feed.fetch(0).reached == {"a/0": 6}
    assert feed.fetch(0).reached == {"b/0": 1}
    client.messages.append(record("b", 1))
    assert feed.fetch(0).reached == {"b/0": 2}
    assert client.assigned == {"a": 6, "b": 0}
    client.messages += [damaged("a", 6), record("b", 2)]
    assert feed.fetch(0).reached == {"b/0": 3}
    assert feed.away == "Kafka at 127.0.0.1:1 does not give the next records of a/0 (_BAD_MSG)."
    feed.leave(["a/0"])
    feed.follow({"a/0": 9})
    client.messages += [record("a", 9)]
    assert reached_and_away(feed) == ({"a/0": 10}, None)
    client.messages += [damaged("a", 10)]
    feed.fetch(0)
    feed.fetch(0)
    assert feed.away is not None
    client.messages += [record("a", 10)]
    assert reached_and_away(feed) == ({"a/0": 11}, None)
    assert client.assigned == {"a": 10, "b": 0}
    feed.close()


def test_a_client_is_opened_only_with_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a first one the client waits for ten seconds and dies of what its callbacks raised."""
    options = {"kafka.security.protocol": "SASL_SSL", "kafka.sasl.mechanism": "AWS_MSK_IAM"}
    brokers = Brokers("b-1.c.abc.c2.kafka.us-east-2.amazonaws.com:9098", options)
    errors: dict[Exception, type[PipelineError]] = {
        AttributeError("access_key"): ConfigurationError,
        ConnectTimeoutError(endpoint_url="https://sts.amazonaws.com"): UnavailableError,
    }
    for raised, expected in errors.items():
        monkeypatch.setattr("sources.kafka.iam._signed", Mock(side_effect=raised))
        for opened in (brokers.admin, lambda: brokers.consumer({"group.id": "g"})):
            with pytest.raises(expected, match="MSK") as caught:
                opened()
            assert "access_key" not in str(caught.value)


def test_a_known_user_is_waited_for_and_old_errors_are_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    brokers = Brokers("127.0.0.1:1", {})
    refusal = KafkaError(KafkaError._AUTHENTICATION)
    client = SimpleNamespace(poll=lambda _: brokers._note_refusal(refusal))
    monkeypatch.setattr("sources.kafka.admin._client", lru_cache(lambda *_: (brokers, client)))
    requests = AdminRequests("127.0.0.1:1", {})
    requests._raise(None, final=False)
    brokers._note_refusal(refusal)
    with pytest.raises(ConfigurationError):
        requests._raise(None, final=False)
    brokers.is_known = True
    requests._raise(None, final=False)
    with pytest.raises(ConfigurationError):
        requests._raise(None, final=True)


def test_of_cluster_with_many_topics_those_of_the_pipeline_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = dict.fromkeys(("cdc.a", "cdc.b", "other"))
    client = Mock(list_topics=Mock(return_value=SimpleNamespace(topics=listed)), describe_topics=Mock(return_value={}))
    answer = (Brokers("127.0.0.1:1", {}), client)
    monkeypatch.setattr("sources.kafka.admin._client", lambda *_: answer)
    config = {"type": "kafka", "envelope": "debezium", "bootstrap_servers": "127.0.0.1:1", "topics_pattern": r"cdc\..*"}
    assert topics_there(KafkaSourceConfig.model_validate(config)) == {}
    (asked,) = client.describe_topics.call_args.args
    assert [str(name) for name in asked.topic_names] == ["cdc.a", "cdc.b"]


def unknown_until(known_from: int) -> tuple[KafkaFeed, Callable[[float], None]]:
    """A feed of a partition that no broker knows before that question, and what lets a question's time pass."""
    config = {"type": "kafka", "envelope": "debezium", "bootstrap_servers": "127.0.0.1:1", "topics": ["a"]}
    feed = KafkaFeed(KafkaSourceConfig.model_validate(config), "checkpoint")
    now, asked = 100.0, 0

    def answer(known: object) -> Future[Any]:
        nonlocal asked
        future: Future[Any] = Future()
        if asked < known_from:
            future.set_exception(KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)))
        else:
            future.set_result(known)
        return future

    def list_offsets(wanted: Any, **_: object) -> dict[TopicPartition, Future[Any]]:
        nonlocal asked
        asked += 1
        return {at: answer(SimpleNamespace(offset=7)) for at in wanted}

    described = SimpleNamespace(partitions=[SimpleNamespace(id=0)])
    admin = Mock(list_offsets=list_offsets, describe_topics=lambda *_, **__: {"a": answer(described)})
    feed._ends._brokers = cast("Any", SimpleNamespace(servers="s", refusal=None, admin=lambda: admin))
    feed._ends.admin, feed._ends.clock = admin, lambda: now

    def after(seconds: float) -> None:
        nonlocal now
        now += seconds
        feed.fetch(0.0)
        feed.fetch(0.0)

    feed.follow({"a/0": 5})
    return feed, after


def test_a_partition_that_no_broker_knows_for_a_moment_is_not_gone() -> None:
    feed, after = unknown_until(4)
    for _ in range(8):
        after(1.5)
    assert feed.away is None
    feed.close()


def test_a_partition_that_no_broker_knows_for_seconds_is_gone() -> None:
    feed, after = unknown_until(99)
    for _ in range(4):
        after(1.2)
    with pytest.raises(SourceGoneError, match="a/0 is gone"):
        after(3.0)
    feed.close()


@pytest.mark.parametrize("listings", [[["cdc.a"], [], ["cdc.a"]], [["cdc.a"], []]], ids=["a moment", "for good"])
def test_a_topic_that_no_broker_lists_is_asked_for_again(
    listings: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that has just started lists no topics yet."""
    monkeypatch.setattr(topic_identity, "_PAUSE_S", 0.0)
    left = list(listings)

    def there(_: object) -> dict[str, Topic]:
        return {name: Topic(name, "id", 1) for name in (left.pop(0) if len(left) > 1 else left[0])}

    monkeypatch.setattr(topic_identity, "topics_there", there)
    clock = iter(range(100)).__next__
    config = KafkaSourceConfig.model_validate(
        {"type": "kafka", "envelope": "debezium", "bootstrap_servers": "127.0.0.1:1", "topics": ["cdc.a"]}
    )
    assert unchanged_topics(config, {"cdc.a": "id"}, "/c", clock).keys() == {"cdc.a"}
    if listings[-1]:
        assert unchanged_topics(config, {"cdc.a": "id"}, "/c", clock).keys() == {"cdc.a"}
    else:
        with pytest.raises(SourceGoneError, match=r"cdc\.a is gone"):
            unchanged_topics(config, {"cdc.a": "id"}, "/c", clock)


@pytest.mark.parametrize("isolation", ["read_uncommitted", "read_committed", None])
def test_the_brokers_are_asked_for_the_end_that_the_reader_can_reach(isolation: str | None) -> None:
    config = {"type": "kafka", "envelope": "debezium", "bootstrap_servers": "127.0.0.1:1", "topics": ["a"]}
    options = {"kafka.isolation.level": isolation} if isolation else {}
    feed = KafkaFeed(KafkaSourceConfig.model_validate(config | {"options": options}), "checkpoint")
    feed._ends.admin = Mock(list_offsets=Mock(return_value={}))
    feed._ends.ask(["a/0"])
    requests = AdminRequests("127.0.0.1:1", options)
    answer: Future[Any] = Future()
    answer.set_result(SimpleNamespace(offset=7))
    requests._admin = Mock(list_offsets=Mock(return_value={TopicPartition("a", 0): answer}))
    assert requests.offsets([Topic("a", "id", 1)], ends=True) == {"a/0": 7}
    for client in (feed._ends.admin, requests._admin):
        asked = client.list_offsets.call_args.kwargs["isolation_level"]
        assert asked.name == (isolation or "read_committed").upper()
    feed.close()


def test_credentials_that_cannot_be_renewed_now_are_waited_for() -> None:
    error = MetadataRetrievalError(error_msg="timed out")
    with pytest.raises(UnavailableError), Stream(Access("s")).translating("GetRecords"):
        raise error


class IdleStream:
    """A shard without a new record, whose iterator expires once."""

    access = SimpleNamespace(stream="s")

    def __init__(self) -> None:
        self.fetched = 0
        self.retention_ms = HOUR_MS

    def summary(self) -> Summary:
        return Summary(Identity("arn", 1), "ACTIVE", self.retention_ms, "USER_PARTITION_KEY")

    def iterator(self, *_: object, **__: object) -> str:
        return "iterator"

    def fetch(self, shard_id: str, *_: object, **__: object) -> Page:
        self.fetched += 1
        if self.fetched == 2:
            self.retention_ms = HOUR_MS // 60
            raise IteratorError("expired")
        return Page([], "iterator", 0)

    def gone(self, what: str) -> Exception:
        return AssertionError(what)


def test_shard_that_was_idle_for_longer_than_its_retention_has_lost_nothing() -> None:
    stream = IdleStream()
    ahead = ReadAhead(cast("Stream", stream), None, interval_s=0.001)
    ahead.follow("a", Mark(TRIM_HORIZON, sequence="5", count=1, seen_ms=int(time.time() * 1000) - HOUR_MS // 2))

    def went_on() -> bool:
        ahead.raise_failure()
        return stream.fetched >= 5

    eventually(went_on)
    ahead.stop()


class RefusedIterators(IdleStream):
    """A shard of which every iterator is refused."""

    def fetch(self, shard_id: str, *_: object, **__: object) -> Page:
        self.fetched += 1
        raise IteratorError(f"GetRecords on stream s, {shard_id}: the iterator has expired.")


def test_iterators_that_are_refused_for_long_are_told_as_away(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = RefusedIterators()
    ahead = ReadAhead(cast("Stream", stream), None, interval_s=0.001)
    ahead.follow("a", Mark(TRIM_HORIZON, sequence="5", count=1, seen_ms=int(time.time() * 1000)))
    eventually(lambda: stream.fetched >= 2)
    first = ahead.away
    assert first is None, "one that expired is got anew"
    monkeypatch.setattr(read_ahead, "PASSING_S", 0.0)
    eventually(lambda: ahead.away is not None)
    away = ahead.away
    ahead.stop()
    assert "the iterator has expired" in str(away)
    assert stream.fetched < 100, "nor is Kinesis asked without a pause"


class EndedShard(IdleStream):
    """A shard that was split: its first page is its last."""

    def fetch(self, shard_id: str, *_: object, **__: object) -> Page:
        return Page([], None, 0)


def test_a_shard_that_has_ended_is_not_said_to_hold_nothing_more() -> None:
    ahead = ReadAhead(cast("Stream", EndedShard()), None, interval_s=0.001)
    mark = Mark(TRIM_HORIZON, sequence="5", count=1, seen_ms=int(time.time() * 1000))
    ahead.follow("a", mark)
    eventually(lambda: ahead.take("a", mark, 1).closed)
    assert ahead.caught_up_ms({"a": mark}) == {"a": 0}
    ahead.stop()


class Events(list[dict[str, Any]]):
    """What a subscription pushes."""

    def close(self) -> None:
        """Nothing is open."""


class BackAgain(IdleStream):
    """Shards that were read to their end when the endpoint went away; as many are fetched at a time as ask."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False
        self.fetching: list[str] = []
        self.at_a_time = 0
        self.back: set[str] = set()

    def fetch(self, shard_id: str, *_: object, **__: object) -> Page:
        self.fetched += 1
        if self.is_away:
            self.back.add(shard_id)
            raise UnavailableError("away")
        if shard_id in self.back:
            self.back.discard(shard_id)
            self.fetching.append(shard_id)
            self.at_a_time = max(self.at_a_time, len(self.fetching))
            time.sleep(0.02)
            self.fetching.remove(shard_id)
        return Page([], "iterator", 0)


def test_shards_that_come_back_are_fetched_as_the_buffer_has_room() -> None:
    stream = BackAgain()
    ahead = ReadAhead(cast("Stream", stream), None, interval_s=0.001, buffer_bytes=2 * PAGE_BYTES)
    shards = [f"shard-{number}" for number in range(12)]
    for shard_id in shards:
        ahead.follow(shard_id, Mark(TRIM_HORIZON, seen_ms=int(time.time() * 1000)))

    eventually(lambda: all(ahead.drained(shard_id) for shard_id in shards))
    stream.is_away = True
    eventually(lambda: len(stream.back) == len(shards))
    stream.is_away = False
    eventually(lambda: not stream.back and not stream.fetching)
    ahead.stop()
    assert stream.at_a_time <= 2


def test_the_last_event_of_a_closed_shard_has_no_continuation() -> None:
    event = {"Records": [], "MillisBehindLatest": 0, "ChildShards": [{"ShardId": "b", "ParentShards": ["a"]}]}
    answer = {"EventStream": Events([{"SubscribeToShardEvent": event}])}
    stream = Stream(Access("s"))
    stream._opened = SimpleNamespace(subscribe_to_shard=lambda **_: answer)
    arn = "arn:aws:kinesis:eu-central-1:123456789012:stream/s/consumer/index:1"
    pages = [page for page, _ in Consumer(stream, arn).pages("a", Mark(TRIM_HORIZON), "")]
    assert pages == [Page([], None, 0)]

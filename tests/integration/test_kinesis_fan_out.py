"""Enhanced fan-out: pushed records, and polled ones wherever there is no subscription."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest

from local_stack.faults.tcp import FaultProxy
from local_stack.servers.aws import Ministack
from schemas.errors import ConfigurationError
from sources.feeds import SourcePositions, refreshed
from sources.kinesis import fan_out as kinesis_fan_out
from sources.kinesis import read_ahead as kinesis_read_ahead
from sources.kinesis import source as kinesis_source
from tests.integration.test_kinesis_feed import CHECKPOINT, reading, through
from tests.integration.test_kinesis_source import World, new_world
from tests.waiting import eventually


@pytest.fixture
def pushed(aws: Ministack) -> Iterator[World]:
    """A stream whose server pushes, and a reader's configuration that polls too rarely to be of use."""
    for world in new_world(aws):
        world.config = world.config.model_copy(update={"consumer": "index", "fetch_interval_ms": 60_000})
        yield world


def test_a_consumer_is_registered_once_and_its_records_are_pushed(pushed: World) -> None:
    with reading(pushed.config) as reader:
        pushed.put(*range(10))
        reader.until(10)
        pushed.put(*range(10, 20))
        began_us = time.time_ns() // 1000
        assert sorted(reader.until(20)) == list(range(20))
        eventually(lambda: reader.fetch() >= 0 and min(reader.feed.caught_up_us().values()) > began_us)
        assert max(reader.feed.caught_up_us().values()) < time.time_ns() // 1000
        middle = dict(reader.positions)
        # A second feed of the process leaves the first one its subscriptions, and polls.
        with reading(pushed.config.model_copy(update={"fetch_interval_ms": 20}), middle) as second:
            pushed.put(20)
            assert second.until(1) == [20]
        reader.until(21)
    consumer = registered(pushed)
    assert consumer["ConsumerName"] == "index"
    eventually(lambda: not kinesis_fan_out._subscribed)
    missing = pushed.config.model_copy(update={"consumer": consumer["ConsumerARN"] + "0"})
    with pytest.raises(ConfigurationError, match="has no consumer"):
        kinesis_source.check(missing)
    by_arn = pushed.config.model_copy(update={"consumer": consumer["ConsumerARN"]})
    kinesis_source.check(by_arn)
    with reading(by_arn, middle) as reader:
        assert reader.until(1) == [20]
        pushed.put(21)
        assert reader.until(2) == [20, 21]


def test_a_subscription_that_breaks_off_goes_on_where_it_was(pushed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinesis_read_ahead, "IN_USE_S", 0.2)
    port = int(str(pushed.config.endpoint_url).rpartition(":")[2])
    with FaultProxy(port) as proxy, reading(through(pushed, proxy.port)) as reader:
        for first in range(0, 40, 10):
            pushed.put(*range(first, first + 10))
            assert sorted(reader.until(first + 10)) == list(range(first + 10))
            before = proxy.connections
            proxy.drop()
        # asyncio never closes a connection that is being accepted while its server closes: both shards have theirs.
        eventually(lambda: reader.fetch() == 0 and proxy.connections >= before + 2)
        proxy.refuse()
        eventually(lambda: reader.fetch() == 0 and reader.feed.away)
        pushed.put(*range(40, 50))
        proxy.heal()
        assert sorted(reader.until(50)) == list(range(50))
        eventually(lambda: reader.fetch() >= 0 and reader.feed.away is None)


def test_a_pushed_shard_that_ends_is_closed_and_its_children_follow(pushed: World) -> None:
    with reading(pushed.config) as reader:
        pushed.put(*range(10))
        reader.until(10)
        parent = pushed.shards()[0]
        pushed.split(parent)
        name = f"{pushed.name}/{parent['ShardId']}"
        eventually(lambda: reader.fetch() >= 0 and reader.positions[name]["closed"])
        state = refreshed(pushed.config, CHECKPOINT, SourcePositions(None, {"one": reader.positions}))
        assert len(state.stores["one"]) == 3
        reader.feed.follow(state.stores["one"])
        pushed.put(*range(10, 20))
        assert sorted(reader.until(20)) == list(range(20))


def registered(pushed: World) -> dict[str, str]:
    """The stream's only consumer."""
    summary = pushed.client.describe_stream_summary(StreamName=pushed.name)["StreamDescriptionSummary"]
    (consumer,) = pushed.client.list_stream_consumers(StreamARN=summary["StreamARN"])["Consumers"]
    return dict(consumer)


def taken_over(pushed: World, arn: str, shard_id: str) -> bool:
    subscribe = pushed.client.subscribe_to_shard
    try:
        subscribe(ConsumerARN=arn, ShardId=shard_id, StartingPosition={"Type": "LATEST"})
    except pushed.client.exceptions.ResourceInUseException:
        return False
    return True


def test_a_subscription_that_another_reader_took_over_is_replaced_by_polling(pushed: World) -> None:
    config = pushed.config.model_copy(update={"fetch_interval_ms": 20})
    with reading(config) as reader:
        pushed.put(*range(10))
        reader.until(10)
        arn = registered(pushed)["ConsumerARN"]
        for shard in pushed.shards():
            # Within five seconds of the last one another subscription is refused.
            eventually(partial(taken_over, pushed, arn, shard["ShardId"]))
        pushed.put(*range(10, 20))
        assert sorted(reader.until(20)) == list(range(20))
        eventually(lambda: not kinesis_fan_out._subscribed)
        pushed.put(*range(20, 30))
        assert sorted(reader.until(30)) == list(range(30))

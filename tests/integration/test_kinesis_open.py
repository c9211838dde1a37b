"""Open batches of a Kinesis stream: records come while a batch is open, and no restart, shard or mode loses one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from local_stack.aws import KinesisLocal
from schemas.errors import SourceGoneError
from sources import kinesis as kinesis_source
from sources.kinesis_arrivals import Arrivals
from sources.kinesis_client import Stream
from sources.kinesis_offsets import TRIM_HORIZON, Offset
from sources.kinesis_open import OpenBatches, OpenKinesisReader
from tests.integration.test_kinesis_source import World, drain, new_world, numbers, rows


class Driver:
    """Runs open batches one after the other, as Spark does; a new one is a restart."""

    def __init__(self, world: World, planned: dict[str, Any] | None = None, *, tasks: int = 2) -> None:
        self.batches = OpenBatches(world.config.access("checkpoints/index"), 20, tasks)
        stream = Stream(world.config.access("checkpoints/index"))
        self.reader = OpenKinesisReader(stream, origin=TRIM_HORIZON, tasks=tasks, reached=self.batches.path)
        if planned:
            self.reader.partitions(planned, planned)
        self.planned = planned or self.reader.initialOffset()

    def begin(self) -> dict[str, Any]:
        """Plan the next batch, and write down what Spark would."""
        self.start, self.planned = self.planned, self.reader.latestOffset()
        return self.planned

    def tasks(self, seconds: float = 1.0) -> list[Arrivals]:
        """What the tasks of the planned batch read."""
        parts = self.reader.partitions(self.start, self.planned)
        return [self.batches.reading.begin(self.reader.read(part), seconds) for part in parts]

    def run(self, seconds: float = 1.0) -> list[int]:
        """Run the planned batch to its end; its records, shard by shard in their order."""
        found: list[int] = []
        for arrivals in self.tasks(seconds):
            found += values(arrivals)
            if told := arrivals.reached():
                self.batches.take(told)
        return found

    def until(self, wanted: int) -> list[int]:
        """Run batches until so many records have come."""
        found: list[int] = []
        deadline = time.monotonic() + 30
        while len(found) < wanted and time.monotonic() < deadline:
            self.begin()
            found += self.run()
        return found


@pytest.fixture
def world(kinesis: KinesisLocal) -> Iterator[World]:
    yield from new_world(kinesis)


def values(groups: Arrivals) -> Iterator[int]:
    return (int(row["value"]) for group in groups for batch in group for row in batch.to_pylist())


@pytest.mark.parametrize("tasks", [1, 2])
def test_records_come_while_a_batch_is_open_and_the_next_begins_where_it_came_to(world: World, tasks: int) -> None:
    driver = Driver(world, tasks=tasks)
    driver.begin()
    (arrivals, *_) = driver.tasks(10)
    coming = values(arrivals)
    late = threading.Timer(0.3, world.put, range(7))
    late.start()
    first = next(coming)  # it was put after the batch had begun
    late.join()
    del coming
    assert sorted(driver.run()) == list(range(7))  # the batch run again: nothing was told of it
    assert first in range(7)
    world.put(*range(7, 20))
    assert sorted(driver.until(13)) == list(range(7, 20))
    assert driver.until(0) == []
    told = driver.batches.empty_us() or {}
    driver.begin()
    assert driver.run() == []
    found = driver.batches.empty_us() or {}
    assert len(found) == len(told) == 2
    assert all(found[place] > at_us for place, at_us in told.items())


def test_a_batch_that_was_not_committed_runs_again_with_what_has_come_since(world: World) -> None:
    world.put(*range(10))
    driver = Driver(world)
    assert sorted(driver.until(10)) == list(range(10))
    committed = driver.planned
    begun = driver.begin()
    world.put(*range(10, 15))
    assert sorted(driver.run()) == list(range(10, 15))
    world.put(15, 16)
    restarted = Driver(world, begun)  # its driver was killed after the batch, before Spark committed it
    restarted.start = committed
    assert sorted(restarted.run(1.0)) == list(range(10, 17))
    restarted.begin()
    assert restarted.run() == []
    # A driver killed between the commit and the next batch's offset knows where the last one began, and that is all.
    again = Driver(world, begun)
    assert sorted(again.until(7)) == list(range(10, 17))


def test_shards_that_split_and_merge_lose_nothing_and_parents_come_first(world: World) -> None:
    world.put(*range(20))
    driver = Driver(world)
    assert sorted(driver.until(20)) == list(range(20))
    world.put(*range(20, 30))
    world.split(world.shards()[0])
    world.put(*range(30, 50))
    world.merge(*world.shards()[1:3])
    world.put(*range(50, 70))
    found = driver.until(50)
    assert sorted(found) == list(range(20, 70))
    for key in range(7):
        of_key = [number for number in found if number % 7 == key]
        assert of_key == sorted(of_key)  # one key's records stay in order over parents and children
    assert any(mark.closed for mark in Offset.from_json(driver.planned).shards.values())


def test_a_checkpoint_goes_from_open_batches_to_others_and_back(world: World) -> None:
    world.put(*range(10))
    driver = Driver(world)
    assert sorted(driver.until(10)) == list(range(10))
    begun = driver.begin()
    world.put(*range(10, 15))
    # The open batch was planned and never committed: to the other reader it holds nothing, and its records come next.
    assert rows(world.reader(), driver.start, begun) == []
    batches = drain(world.reader(limit=4), begun)
    assert numbers(batches) == list(range(10, 15))
    world.put(*range(15, 20))
    start, end, _ = batches[-1]
    back = Driver(world, end)
    back.start = start
    assert sorted(back.run()) == sorted(int(value) for _, _, value in batches[-1][2])  # uncommitted: exactly as it was
    assert sorted(back.until(5)) == list(range(15, 20))


def test_a_stream_that_was_made_again_stops_the_job(world: World) -> None:
    world.put(1)
    driver = Driver(world)
    assert driver.until(1) == [1]
    end = driver.begin()
    world.client.delete_stream(StreamName=world.name)
    time.sleep(0.5)
    with pytest.raises(SourceGoneError, match="no longer exists"):
        driver.run(5)
    world.client.create_stream(StreamName=world.name, ShardCount=2)
    time.sleep(0.5)
    with pytest.raises(SourceGoneError, match="made again") as caught:
        Driver(world, end)
    assert "move checkpoints/index away" in str(caught.value)


def test_a_task_is_planned_for_each_shard_that_can_be_read_now(world: World) -> None:
    assert kinesis_source.shards(world.config) == 2
    world.split(world.shards()[0])
    assert kinesis_source.shards(world.config) == 3
    driver = Driver(world, tasks=2)
    driver.begin()
    works = [json.loads(row["instruction"])[-1] for part in driver.reader.partitions(driver.start, driver.planned)
             for batch in driver.reader.read(part) for row in batch.to_pylist()]  # fmt: skip
    assert len(works) == 2
    assert len({shard_id for each in works for shard_id, _, _ in each}) == 2

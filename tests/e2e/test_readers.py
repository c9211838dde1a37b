"""Readers under load, killed, frozen, moved, cut off, given other partitions: nothing is lost or wrong, little paid twice."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pyspark
import pytest
from psycopg.conninfo import make_conninfo

from local_stack.faults.tcp import FaultProxy
from local_stack.models.service import ModelService
from local_stack.servers.aws import KinesisLocal
from local_stack.servers.kafka import Broker
from local_stack.servers.postgres import VectorStore
from local_stack.stack import Stack
from tests.e2e.load import Load, Shards, Topic
from tests.e2e.pipeline import Driver
from tests.e2e.under_load import Scene, await_none, kafka_source, kill, split_and_merge, under_load
from tests.servers import create_stream
from tests.waiting import eventually

MASTER = "local-cluster[2,1,1024]"
AWAY_SECONDS = 4.0
EVERYTHING = -1
"""Expires a partition up to its end."""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_readers_killed_frozen_or_cut_off_lose_nothing_or_stop_for_good(  # noqa: PLR0917 - fixtures
    kafka: Broker,
    new_topic: Callable[..., str],
    vectors: VectorStore,
    vectors_dsn: str,
    new_proxy: Callable[[int], FaultProxy],
    instant_model: ModelService,
    local_stack: Stack,
    tmp_path: Path,
) -> None:
    topic, proxy = new_topic(3), new_proxy(vectors.port)
    stream, source = Topic(kafka.endpoint["bootstrap_servers"], topic, 3), kafka_source(kafka, topic)
    shaky = make_conninfo(vectors_dsn, port=proxy.port, host="127.0.0.1")
    with under_load(
        tmp_path, source, stream, instant_model, vectors_dsn, store_dsn=shaky, mark=str(local_stack.directory)
    ) as scene:
        driver = scene.start()
        killed_and_replaced(driver)
        kill(driver.workers[0])
        scene.settle()
        moved_away(driver)
        scene.settle()
        kafka.add_partitions(topic, 5)
        stream.partitions = 5
        eventually(lambda: f"{topic}/4" in scene.positions(), driver=driver.process)
        scene.settle()
        for leave, come_back in (
            (kafka.pause, kafka.resume),
            (instant_model.pause, instant_model.resume),
            (proxy.refuse, proxy.heal),
        ):
            cut_off(scene, leave, come_back)
        scene.load.idle.set()
        shown = len(scene.freshness.key_moves)
        eventually(lambda: len(scene.freshness.key_moves) > shown + 3)  # also while nothing comes
        scene.load.idle.clear()
        driver.kill_alone()
        again = scene.start()
        await_none(driver, 15)
        scene.finish(kills=4)
        assert not again.logged("query failed, starting again")
        assert again.stop() == 0
        await_none(again, 3)
        scene.load.change(50)
        for partition in range(5):
            kafka.expire(topic, partition, EVERYTHING)
        stopped_for_good(scene.pipeline.start("--jobs", "index"), topic)


def cut_off(scene: Scene[Load], leave: Callable[[], object], come_back: Callable[[], object]) -> None:
    """What the readers need is away for some seconds; they wait, and go on."""
    leave()
    try:
        scene.still(AWAY_SECONDS)
    finally:
        come_back()
    scene.settle()


def killed_and_replaced(driver: Driver) -> None:
    """A reader is killed, and the next tick starts another."""
    before = {reader.pid for reader in driver.readers}
    kill(driver.readers[0])
    eventually(lambda: {reader.pid for reader in driver.readers} - before, 60, driver.process)


def moved_away(driver: Driver) -> None:
    """A reader answers no task, so the task starts another; then the old one goes on as well, until nobody asks it."""
    (old, *_) = driver.readers
    others = {reader.pid for reader in driver.readers}
    old.send(signal.SIGSTOP)
    try:
        eventually(lambda: {reader.pid for reader in driver.readers} - others, 60, driver.process)
    finally:
        old.send(signal.SIGCONT)
    eventually(lambda: not old.alive, driver=driver.process)


@pytest.fixture
def executors_of_a_cluster() -> Iterator[None]:
    """They write beside Spark's own jars; that is removed."""
    yield
    shutil.rmtree(Path(pyspark.__path__[0]) / "work", ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("executors_of_a_cluster")
def test_a_killed_executor_loses_nothing_and_another_topic_stops_the_job(
    kafka: Broker,
    new_topic: Callable[..., str],
    vectors_dsn: str,
    instant_model: ModelService,
    local_stack: Stack,
    tmp_path: Path,
) -> None:
    topic = new_topic(2)
    stream, source = Topic(kafka.endpoint["bootstrap_servers"], topic, 2), kafka_source(kafka, topic)
    with under_load(tmp_path, source, stream, instant_model, vectors_dsn, mark=str(local_stack.directory)) as scene:
        driver = scene.pipeline.submit("index_documents.py", MASTER)
        scene.settle()
        executors = driver.children("CoarseGrainedExecutorBackend")
        assert len(executors) == 2
        kill(executors[0])
        scene.settle()
        scene.finish(kills=1)
        kafka.delete_topic(topic)
        kafka.create_topic(topic, 2)
        stopped_for_good(driver, topic)
        await_none(driver, 3)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_shards_split_and_merge_under_a_reader_that_is_killed(
    kinesis: KinesisLocal, vectors_dsn: str, instant_model: ModelService, local_stack: Stack, tmp_path: Path
) -> None:
    name, client = create_stream(kinesis, 2), kinesis.client("kinesis")
    source = {"type": "kinesis", "envelope": "debezium", "stream": name, "fetch_interval_ms": 250, **kinesis.endpoint}
    stream = Shards(client, name)
    with under_load(
        tmp_path, source, stream, instant_model, vectors_dsn, key_moves=False, mark=str(local_stack.directory)
    ) as scene:
        driver = scene.start()
        split_and_merge(client, name, between=lambda: killed_and_replaced(driver))
        scene.settle()
        scene.finish(kills=1)
        assert driver.stop() == 0
        await_none(driver, 3)


def stopped_for_good(driver: Driver, topic: str) -> None:
    """The driver ends by itself and says what was lost."""
    assert driver.wait(60) == 3
    text = driver.log.read_text()
    assert f"no longer holds what {topic}/" in text or f"topic {topic} was made again" in text, text[-1500:]
    assert "Traceback" not in text

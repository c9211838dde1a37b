"""`make test-long`: hours of changes, a kill now and then, outages of 20 seconds; nothing lost, and nothing that grows."""

from __future__ import annotations

import math
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import click
import pytest
from psycopg.conninfo import make_conninfo

from local_stack.faults.tcp import FaultProxy
from local_stack.models.service import ModelService
from local_stack.processes import Process, find
from local_stack.servers.kafka import Broker
from local_stack.servers.postgres import VectorStore
from local_stack.stack import Stack
from tests.e2e.load import Topic
from tests.e2e.pipeline import Driver, Pipeline
from tests.e2e.samples import Samples, grown_by
from tests.e2e.under_load import Scene, kafka_source, kill, under_load

RATE = 50.0
OUTAGE_SECONDS = 20.0
JOBS = "land,index,merge"
GROWTH_MIB = {"reader": 48.0, "worker": 130.0, "driver": 48.0}
"""What a process may grow by once it is warm, however long it lives: a reader remembers 32 MiB of the model's answers, and a
worker imports all it needs with its first task."""
LIVE_GROWTH_MIB = 48.0
"""What a JVM's live objects may grow by: its heap fills up to its limit before it is collected as a whole."""


@pytest.mark.timeout(0)
def test_hours_of_changes_kills_and_outages_leave_every_row_and_flat_processes(  # noqa: PLR0917 - fixtures
    request: pytest.FixtureRequest,
    kafka: Broker,
    new_topic: Callable[..., str],
    vectors: VectorStore,
    vectors_dsn: str,
    new_proxy: Callable[[int], FaultProxy],
    instant_model: ModelService,
    local_stack: Stack,
    tmp_path: Path,
) -> None:
    seconds = 60 * request.config.getoption("--minutes")
    every = 60 * request.config.getoption("--kill-every")
    topic, proxy = new_topic(3), new_proxy(vectors.port)
    stream, source = Topic(kafka.endpoint["bootstrap_servers"], topic, 3), kafka_source(kafka, topic)
    shaky = make_conninfo(vectors_dsn, port=proxy.port, host="127.0.0.1")
    outages = cycle([
        ("broker", kafka.pause, kafka.resume),
        ("store", proxy.refuse, proxy.heal),
        ("model", instant_model.pause, instant_model.resume),
    ])  # fmt: skip
    live: dict[int, list[float]] = defaultdict(list)
    victims, kills = cycle(["worker", "reader", "driver"] if every else ["nobody"]), 0
    mark = str(local_stack.directory)
    with under_load(
        tmp_path, source, stream, instant_model, vectors_dsn, rate=RATE, store_dsn=shaky, mark=mark
    ) as scene:
        driver = scene.start("--jobs", JOBS)
        with sampled(scene.pipeline, tmp_path) as samples:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                pause = (every or 600) / 2
                time.sleep(max(0.0, pause - OUTAGE_SECONDS))
                what, leave, come_back = next(outages)
                leave()
                time.sleep(OUTAGE_SECONDS)
                come_back()
                caught_up = scene.settle()
                time.sleep(max(0.0, pause - caught_up))
                for jvm in driver.children("org.apache.spark"):
                    live[jvm.pid].append(live_heap_mib(jvm.pid))
                victim = next(victims)
                driver = killed(scene, driver, victim)
                kills += victim != "nobody"
                click.echo(
                    f"{what} was away, caught up after {caught_up:.1f} s; {victim} killed, after {scene.settle():.1f} s"
                )
        scene.finish(kills=kills)
        assert driver.stop() == 0
    click.echo(samples.table())
    click.echo(f"MiB of live objects, by JVM: {dict(live)}")
    leaking = [pid for pid, mib in live.items() if mib[-1] - mib[0] > LIVE_GROWTH_MIB]
    assert (grown(samples), leaking) == ([], [])


def live_heap_mib(jvm: int) -> float:
    """Collect a JVM's heap as a whole, and return what is left."""
    histogram = subprocess.run(["jcmd", str(jvm), "GC.class_histogram"], capture_output=True, text=True, check=True)
    return round(int(histogram.stdout.splitlines()[-1].split()[2]) / 2**20, 1)


def killed(scene: Scene[Any], driver: Driver, victim: str) -> Driver:
    """Kill a worker, a reader, or the driver with all it has started; the driver that runs then."""
    if victim == "driver":
        driver.kill()
        return scene.start("--jobs", JOBS)
    for process in {"worker": driver.workers, "reader": driver.readers}.get(victim, [])[:1]:
        kill(process)
    return driver


@contextmanager
def sampled(pipeline: Pipeline, folder: Path) -> Iterator[Samples]:
    """Look at the processes of the last driver until the block ends."""

    def roles() -> Mapping[str, list[Process]]:
        driver = pipeline.drivers[-1]
        leader = find(driver.process.pid)
        return {
            "reader": driver.readers, "worker": driver.workers, "jvm": driver.children("org.apache.spark"),
            "driver": [leader] if leader else [],
        }  # fmt: skip

    samples = Samples(roles)
    samples.start()
    try:
        yield samples
    finally:
        samples.halt()
        samples.write(folder / "samples.csv")
        click.echo(f"samples: {folder / 'samples.csv'}")


def grown(samples: Samples) -> list[str]:
    """Which processes need more and more."""
    messages = []
    for (role, pid), life in samples.lives().items():
        growth = grown_by(life)
        line = f"{role} {pid} grew by {growth:.0f} MiB in {life[-1].second - life[0].second:.0f} s"
        click.echo(line)
        if growth > GROWTH_MIB.get(role, math.inf):
            messages.append(line)
        third = len(life) // 3
        for name in ("descriptors", "threads"):
            first, last = (statistics.median(getattr(s, name) for s in part) for part in (life[:third], life[-third:]))
            if last > 1.25 * first + 8:
                messages.append(f"{role} {pid} had {first} {name}, and has {last}")
    return messages

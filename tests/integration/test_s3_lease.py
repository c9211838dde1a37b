"""Two drivers on one checkpoint on S3: one runs, and what a kill, a pause or a lost answer leaves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial

import pytest

from glue_jobs.storage.s3_lease import EXPIRY_SECONDS, STALE_SECONDS, Holder, S3Lease, S3Object, this_process
from local_stack.faults.s3 import Point, S3Proxy
from local_stack.servers.aws import Ministack
from schemas.errors import ConfigurationError, StoppedError, UnavailableError
from tests.waiting import eventually

DRIVER = """
import sys, threading
from glue_jobs.storage.lease import lease
with lease(sys.argv[1], threading.Event()) as held:
    print("held", flush=True)
    for line in sys.stdin:
        held.confirm()
        print("confirmed", flush=True)
"""
ELSEWHERE = Holder("elsewhere", 7, "2026-01-01T00:00:00+00:00", "another machine/pid:[1]/5")


@dataclass
class Clock:
    """A clock that stands still unless it is waited for."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def place(bucket: str) -> str:
    return f"s3a://{bucket}/checkpoint/leases/land_desk.json"


def other(place: str, clock: Clock) -> S3Lease:
    """The lease of a driver on a machine that is not this one."""
    return S3Lease(S3Object(place), "land_desk", ELSEWHERE, clock)


def not_at(point: Point, _: str, at: Point) -> bool:
    return at != point


def acquire(one: S3Lease, clock: Clock) -> bool:
    return one.acquire(threading.Event(), clock.wait)


def test_of_two_drivers_one_gets_the_checkpoint_the_other_its_holders_name(place: str) -> None:
    clock = Clock()
    drivers = [other(place, clock), replace(other(place, clock), holder=replace(ELSEWHERE, host="third"))]
    done = threading.Event()

    def start(one: S3Lease) -> str:
        try:
            assert one.acquire(threading.Event(), lambda _: done.wait(0.05))
        except ConfigurationError as error:
            done.set()
            return f"{error.condition} {error.exit_status} {error}"
        while not done.wait(0.05):
            one.renew()
        return one.holder.host

    with ThreadPoolExecutor(2) as pool:
        won, refusal = sorted(pool.map(start, drivers), key=len)
    assert refusal.startswith("CHECKPOINT_IN_USE 2 ")
    assert f"process 7 on {won}, since 2026-01-01" in refusal


def test_lease_that_nobody_renews_expires_and_one_that_is_released_is_free(place: str) -> None:
    clock = Clock()
    assert acquire(other(place, clock), clock)
    killed_at = clock.now
    successor = other(place, clock)
    assert acquire(successor, clock)
    assert EXPIRY_SECONDS <= clock.now - killed_at <= EXPIRY_SECONDS + 2
    successor.release()
    released_at = clock.now
    assert acquire(other(place, clock), clock)
    assert clock.now == released_at


def test_a_driver_paused_for_longer_than_its_lease_stops_before_committing(place: str) -> None:
    clock = Clock()
    paused = other(place, clock)
    assert acquire(paused, clock)
    clock.now += STALE_SECONDS + 1
    paused.confirm()  # nobody took it: asked, S3 says so
    assert acquire(other(place, clock), clock)
    with pytest.raises(StoppedError, match="another has taken its checkpoint") as raised:
        paused.confirm()
    assert (raised.value.exit_status, raised.value.condition) == (3, "LEASE_LOST")
    with pytest.raises(StoppedError):
        paused.raise_if_lost()
    paused.release()
    assert not Holder(**json.loads((S3Object(place).read() or ("", ""))[0])).released, "it is the other's"


def test_a_renewal_whose_answer_is_lost_is_this_drivers_own(
    place: str, aws: Ministack, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[str] = []

    def goes_on(path: str, point: Point) -> bool:
        loses = point == "done" and len(lost) in {0, 2}
        lost.append(path)
        return not loses

    with S3Proxy(aws.endpoint["endpoint_url"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint_url)
        clock = Clock()
        one = other(place, clock)
        proxy.goes_on = goes_on
        assert acquire(one, clock)
        one.renew()
        one.confirm()
        points: tuple[Point, ...] = ("asked", "done")
        for lost_at in points:  # every answer, though S3 may have the put
            proxy.goes_on = partial(not_at, lost_at)
            clock.now += STALE_SECONDS + 1
            with pytest.raises(UnavailableError):
                one.confirm()
            one.raise_if_lost()
            proxy.goes_on = lambda _, __: True
            one.confirm()
    assert len(lost) > 2


@pytest.fixture
def driver(bucket: str) -> Iterator[subprocess.Popen[str]]:
    """A process of this machine that holds the lease of a query."""
    command = [sys.executable, "-c", DRIVER, f"s3a://{bucket}/checkpoint/land_desk"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_killed_driver_of_this_machine_is_succeeded_at_once(driver: subprocess.Popen[str], place: str) -> None:
    holder = S3Object(place).read()
    assert holder is not None
    assert not Holder(**json.loads(holder[0])).is_gone()
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    clock = Clock()
    successor = S3Lease(S3Object(place), "land_desk", this_process(), clock)
    assert acquire(successor, clock)
    assert clock.now == Clock().now, "nothing was waited for"
    successor.confirm()


def test_a_suspended_driver_whose_checkpoint_was_taken_stops(driver: subprocess.Popen[str], place: str) -> None:
    driver.send_signal(signal.SIGSTOP)
    clock = Clock()
    assert acquire(other(place, clock), clock)
    driver.send_signal(signal.SIGCONT)
    assert driver.stdin is not None
    with suppress(BrokenPipeError), closing(driver.stdin) as orders:  # it may end between a look and an order

        def ended() -> bool:
            if driver.poll() is None:
                print("confirm", file=orders, flush=True)
            return driver.poll() is not None

        eventually(ended, 30)
    assert driver.wait(30) == 1


def test_this_process_is_alive_and_another_machines_is_unknown() -> None:
    assert not this_process().is_gone()
    assert not ELSEWHERE.is_gone()
    assert replace(this_process(), pid=2**22 + 1).is_gone()
    assert replace(this_process(), process=f"{this_process().process}0").is_gone(), "a number that was given again"

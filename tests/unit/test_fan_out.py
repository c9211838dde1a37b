"""Several stores written at once, one of which may stay away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NoReturn

import pytest

from indexing.fan_out import write_all
from schemas.errors import ConfigurationError, ModelUnavailableError, UnavailableError


class Clock:
    """Stands still unless it is waited for."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("indexing.fan_out.time", made)
    return made


class Write:
    """Writes into one store, in the test's words: how often it fails, and what each call does before."""

    def __init__(self, failures: float = 0, before: Callable[[], object] = lambda: None) -> None:
        self.failures, self.before, self.calls = failures, before, 0
        self.thread = ""
        self.done = threading.Event()

    def __call__(self) -> None:
        self.calls += 1
        self.thread = threading.current_thread().name
        self.before()
        if self.calls <= self.failures:
            raise UnavailableError("sink slow: PostgreSQL does not answer")
        self.done.set()


ALWAYS = float("inf")


def test_one_store_alone_is_written_by_the_caller_and_raises() -> None:
    alone = Write(failures=1)
    with pytest.raises(UnavailableError):
        write_all({"alone": alone}, {"alone": 60.0})
    assert write_all({"alone": alone}, {"alone": 60.0}) == set()
    assert (alone.calls, alone.thread) == (2, threading.current_thread().name)


def test_a_store_back_within_its_deadline_missed_nothing_and_delays_no_other() -> None:
    fast = Write()
    slow = Write(failures=3, before=fast.done.wait)  # it answers nothing before the other is done
    assert write_all({"slow": slow, "fast": fast}, {"slow": 30.0, "fast": 30.0}) == set()
    assert (slow.calls, fast.calls) == (4, 1)


@pytest.mark.parametrize("seconds", [0.0, 0.5], ids=["it refuses", "it is silent"])
def test_one_that_stays_away_is_missed_once_its_deadline_is_over(seconds: float, clock: Clock) -> None:
    away = Write(failures=ALWAYS, before=lambda: clock.sleep(seconds))
    assert write_all({"away": away, "here": Write()}, {"away": 0.4, "here": 0.4}) == {"away"}
    assert clock.now == pytest.approx(1000 + (seconds or 0.4))
    assert away.calls == (1 if seconds else 3), "a call that waits counts from its beginning"


def wrong(error: Exception) -> Callable[[], NoReturn]:
    def write() -> NoReturn:
        raise error

    return write


@pytest.mark.parametrize(
    ("write", "deadlines", "error"),
    [
        (Write(failures=ALWAYS), {"other": 0.1}, UnavailableError),
        (wrong(ModelUnavailableError("the model is away")), {"one": 60.0, "other": 60.0}, ModelUnavailableError),
        (wrong(ConfigurationError("the index is another's")), {"one": 60.0, "other": 60.0}, ConfigurationError),
    ],
    ids=["nobody remembers it", "the model", "it can never be written"],
)
def test_what_no_going_on_mends_is_raised(
    write: Callable[[], None], deadlines: dict[str, float], error: type[Exception]
) -> None:
    other = Write()
    with pytest.raises(error):
        write_all({"one": write, "other": other}, deadlines)
    assert other.calls == 1


def test_when_all_are_away_nothing_is_missed() -> None:
    with pytest.raises(UnavailableError):
        write_all({"a": Write(failures=ALWAYS), "b": Write(failures=ALWAYS)}, {"a": 0.1, "b": 0.3})

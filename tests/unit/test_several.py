"""Pieces of work on their way into several stores, each at its own pace."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from schemas.errors import ConfigurationError
from sinks.several import Missed, Several
from tests.documentdb_store import eventually


@dataclass
class Store:
    """A name; what is written to it is for the test to say."""

    name: str

    def close(self) -> None: ...


@dataclass
class Stores:
    """Two of them: `slow` takes nothing while its door is shut."""

    door: threading.Event = field(default_factory=threading.Event)
    taken: dict[str, list[list[int]]] = field(default_factory=lambda: {"fast": [], "slow": []})
    finished: dict[str, list[int]] = field(default_factory=lambda: {"fast": [], "slow": []})

    def write(self, pieces: Iterator[tuple[int, int]]) -> None:
        Several(cast("Any", [Store(name) for name in self.taken])).write(pieces, self._write, self._done)

    def _write(self, store: Any, lenders: Sequence[Any], pieces: Sequence[int]) -> None:
        if store.name == "slow":
            assert self.door.wait(10)
        self.taken[store.name].append(list(pieces))

    def _done(self, store: str, pieces: Sequence[int], missed: Missed | None) -> None:
        assert missed is None
        self.finished[store] += pieces


def test_a_slow_store_takes_at_once_what_came_meanwhile_and_keeps_no_other_waiting() -> None:
    stores = Stores()

    def pieces() -> Iterator[tuple[int, int]]:
        for number in range(6):
            yield number, 1
            assert eventually(lambda: stores.finished["fast"][-1:] == [number])  # noqa: B023 - called at once
        stores.door.set()

    stores.write(pieces())
    assert stores.taken["fast"] == [[number] for number in range(6)]
    assert stores.taken["slow"] in ([[0], [1, 2, 3, 4, 5]], [[0, 1], [2, 3, 4, 5]])
    assert stores.finished == {"fast": [*range(6)], "slow": [*range(6)]}


def test_what_waits_for_a_store_is_bounded() -> None:
    stores, drawn = Stores(), list[int]()

    def pieces() -> Iterator[tuple[int, int]]:
        for number in range(20):
            drawn.append(number)
            yield number, 3 << 20

    writing = threading.Thread(target=stores.write, args=(pieces(),))
    writing.start()
    assert eventually(lambda: len(drawn) >= 4)
    time.sleep(0.1)
    assert len(drawn) <= 7, "three (8 MB) in its hands, three that wait, one before the door"
    stores.door.set()
    writing.join(10)
    assert stores.finished == {"fast": [*range(20)], "slow": [*range(20)]}


def test_an_error_of_one_store_ends_it_for_all_and_a_failed_reading_waits_for_what_is_written() -> None:
    def wrong(store: Any, *_: Any) -> None:
        if store.name == "slow":
            raise ConfigurationError("the index is another's")

    def endless() -> Iterator[tuple[int, int]]:
        while True:
            time.sleep(0.001)
            yield 0, 1

    several = Several(cast("Any", [Store("fast"), Store("slow")]))
    with pytest.raises(ConfigurationError, match="another's"):
        several.write(endless(), wrong, lambda *_: None)

    stores = Stores()

    def broken() -> Iterator[tuple[int, int]]:
        yield 0, 1
        assert eventually(lambda: stores.finished["fast"] == [0])
        threading.Timer(0.2, stores.door.set).start()
        raise OSError("the source is gone")

    with pytest.raises(OSError, match="the source is gone"):
        stores.write(broken())
    assert stores.taken["slow"] in ([], [[0]])
    assert stores.finished["slow"] == [0, *()][: len(stores.taken["slow"])]

"""Connections for many threads: how many, whose, how long one is waited for, and what an error leaves."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest

from embeddings.pool import Pool
from schemas.errors import UnavailableError


class Connection:
    """Counts how often it was closed; `broken` fails once."""

    def __init__(self) -> None:
        self.closed, self.broken = 0, False

    def use(self) -> Connection:
        if self.broken:
            self.broken = False
            raise UnavailableError("gone")
        return self

    def close(self) -> None:
        self.closed += 1


class Opened:
    """A pool, and every connection that it opened."""

    def __init__(self, most: int) -> None:
        self.every: list[Connection] = []
        self.pool = Pool("store", self._open, most, patience=0.05)

    def _open(self) -> Connection:
        self.every.append(Connection())
        return self.every[-1]


def test_a_connection_that_others_use_is_waited_for_a_bounded_time() -> None:
    opened = Opened(1)
    with opened.pool.borrowed(), pytest.raises(UnavailableError, match="all 1 connections") as refused:
        opened.pool.run(Connection.use)
    assert refused.value.condition == "CONNECTIONS_IN_USE"
    assert opened.pool.run(Connection.use) is opened.every[0]
    assert len(opened.every) == 1


def test_a_thread_gets_the_connection_it_used_last() -> None:
    opened, mine = Opened(2), list[Connection]()

    def use() -> None:
        with opened.pool.borrowed() as connection:
            mine.append(connection)
            barrier.wait(5)

    barrier = threading.Barrier(2)
    other = threading.Thread(target=use)
    other.start()
    with opened.pool.borrowed() as own:
        barrier.wait(5)
        other.join()
    assert own is not mine[0]
    assert [opened.pool.run(Connection.use) for _ in range(3)] == [own] * 3


def test_a_connection_is_closed_after_an_error() -> None:
    opened = Opened(1)
    with suppress(KeyError), opened.pool.borrowed():
        raise KeyError
    assert opened.every[0].closed == 1
    assert opened.pool.run(Connection.use) is opened.every[1]


def test_one_that_was_open_and_broke_is_replaced_with_all_that_idle() -> None:
    opened = Opened(2)
    with opened.pool.borrowed(), opened.pool.borrowed():
        pass
    for connection in opened.every:
        connection.broken = True
    assert opened.pool.run(Connection.use) is opened.every[2]
    assert [connection.closed for connection in opened.every] == [1, 1, 0]


def test_a_new_one_that_does_not_answer_is_not_replaced() -> None:
    opened = Opened(1)

    def fail(_: Connection) -> None:
        raise UnavailableError("away")

    with pytest.raises(UnavailableError, match="away"):
        opened.pool.run(fail)
    assert len(opened.every) == 1


def test_one_in_use_when_the_pool_closes_is_closed_then() -> None:
    opened = Opened(1)
    with opened.pool.borrowed() as connection:
        opened.pool.close()
        assert connection.closed == 0
    assert connection.closed == 1

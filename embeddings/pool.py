"""A bounded number of connections for many threads, each used by one of them at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from schemas.errors import UnavailableError

PATIENCE_SECONDS = 10.0
"""How long a thread waits for a connection that others use."""
_DEAD_WITHIN_SECONDS = 2.0
"""A connection that a restart of its server broke fails at once; what takes longer is the server's own slowness."""


class Closeable(Protocol):
    """What can be pooled."""

    def close(self) -> None:
        """Close connections; the next call opens others."""


@dataclass(slots=True)
class _Idle[T]:
    connection: T
    thread: int
    """Who used it last: it may hold what the same question needs again."""


class Pool[T: Closeable]:
    """At most `most` connections, opened when they are needed, and closed after an error. Thread-safe."""

    def __init__(self, name: str, opened: Callable[[], T], most: int, patience: float = PATIENCE_SECONDS) -> None:
        """`name` is for errors; `patience` is in seconds."""
        self._name, self._opened, self._most, self._patience = name, opened, most, patience
        self._free = threading.Semaphore(most)
        self._lock = threading.Lock()
        self._idle: list[_Idle[T]] = []
        self._closings = 0

    @contextmanager
    def borrowed(self) -> Iterator[T]:
        """A connection for one thread; one that an error leaves is closed.

        Raises:
            UnavailableError: others used all of them for `patience` seconds.
        """
        with self._taken() as (connection, _):
            yield connection

    def run[R](self, work: Callable[[T], R]) -> R:
        """Read by a connection; once more by a new one where one that was open already turns out to be broken.

        Raises:
            UnavailableError: the server does not answer, or others used all connections for `patience` seconds.
        """
        began, was_open = time.monotonic(), False
        try:
            with self._taken() as (connection, was_open):
                return work(connection)
        except UnavailableError:
            if not was_open or time.monotonic() - began > _DEAD_WITHIN_SECONDS:
                raise
        self.close()
        with self._taken() as (connection, _):
            return work(connection)

    def close(self) -> None:
        """Close the idle connections, and the others when they are returned; the next call opens new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._closings += 1
        for unused in idle:
            unused.connection.close()

    @contextmanager
    def _taken(self) -> Iterator[tuple[T, bool]]:
        """A connection, and whether it was open."""
        if not self._free.acquire(timeout=self._patience):
            raise UnavailableError(
                f"{self._name}: all {self._most} connections were in use for {self._patience:g} s",
                condition="CONNECTIONS_IN_USE",
                hint="ask again; if it goes on, allow more connections or more processes",
            )
        try:
            idle, closings = self._next()
            connection = self._opened() if idle is None else idle.connection
            try:
                yield connection, idle is not None
            except BaseException:
                connection.close()
                raise
            with self._lock:
                is_kept = closings == self._closings
                if is_kept:
                    self._idle.append(_Idle(connection, threading.get_ident()))
            if not is_kept:
                connection.close()
        finally:
            self._free.release()

    def _next(self) -> tuple[_Idle[T] | None, int]:
        """The connection that this thread used last, else one that was used long ago."""
        with self._lock:
            own = (place for place, idle in enumerate(self._idle) if idle.thread == threading.get_ident())
            return (self._idle.pop(next(own, 0)) if self._idle else None), self._closings

"""The reader's process: it is started by a task, answers tasks over TCP, and ends when nobody asks it any more.

`python -m reader.process` takes settings, a secret and the process id of its executor on stdin, as a pickled tuple, and writes
its address, pickled, to stdout.
"""

from __future__ import annotations

import gc
import math
import os
import pickle
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import AuthenticationError
from typing import TYPE_CHECKING, Any

from reader.channel import address_of, authenticated, listen, own_address
from reader.failures import told
from reader.messages import Instruction, ReaderSettings, Stop
from reader.pipeline import Pipeline
from reader.results import Results
from reader.writers import Steps, Writers, indexer_of
from sources.feeds import open_feed

if TYPE_CHECKING:
    from sources.feeds import Feed

_SWITCH_SECONDS = 0.0005
"""How long one thread may keep the interpreter from the others (default 5 ms): writing is to go on while records are decoded."""
_MOST_PEERS = 64
"""Connections that are served at once; more are hung up on."""
_LOOK_SECONDS = 0.25
_SETTLED_SECONDS = 10.0
"""After so long the clients of source, model and stores are open: 41,000 objects that the start had not made."""
_END_SECONDS = 1.0
"""How long the feed may take to close at the end."""


class OtherPartError(ConnectionError):
    """An instruction is for another of the query's readers: its address, or this port, was that one's before."""


class Reader:
    """Answers tasks: by the pipeline of the epoch that they belong to. It is one part of a query for as long as it lives."""

    def __init__(self, source: str, feed: Callable[[], Feed], writers: Writers, address: str) -> None:
        """Read nothing before the first instruction; `source` is the source's name in the configuration."""
        self.asked_at = time.monotonic()
        self.stopped = threading.Event()
        self._source, self._feed, self._writers, self._address = source, feed, writers, address
        self._part: int | None = None
        self._epoch: str | None = None
        self._results = Results(writers.indexer.asked())
        self._pipeline: Pipeline | None = None
        self._lock = threading.Lock()

    def answer(self, message: Instruction | Stop) -> bytes:
        """The answer to a message, pickled: a harvest, None, or the error that the reader died of.

        Raises OtherPartError for an instruction that is not for this reader; it changes nothing, and whoever asked hears
        that nobody answers, and starts a reader.
        """
        if isinstance(message, Stop):
            self.stopped.set()
            return pickle.dumps(None)
        with self._lock:
            if self._part not in {None, message.part}:
                raise OtherPartError
            self._part, self.asked_at = message.part, time.monotonic()
            try:
                return pickle.dumps(self._harvest(message))
            except Exception as error:  # noqa: BLE001 - it is raised in the task
                return pickle.dumps(told(error))

    def end(self) -> None:
        """End what is under way."""
        with self._lock:
            if self._pipeline is not None:
                self._pipeline.end()
                self._pipeline.join(_END_SECONDS)

    def _harvest(self, instruction: Instruction) -> Any:
        if self._pipeline is None or instruction.epoch != self._epoch:
            if self._pipeline is not None:
                self._pipeline.end()
            self._results = Results(self._results.told_asked)
            self._pipeline = Pipeline(self._source, self._feed, self._writers, self._results)
            self._epoch = instruction.epoch
        self._pipeline.follow(instruction)
        return self._pipeline.harvest(self._address, instruction.batch)


def serve(listening: socket.socket, secret: bytes, reader: Reader) -> None:
    """Answer peers that know the secret, each in a thread of its own, until the reader is stopped; others do no harm."""
    free = threading.BoundedSemaphore(_MOST_PEERS)

    def converse(accepted: socket.socket) -> None:
        try:
            with authenticated(accepted, secret) as connection:
                connection.send_bytes(reader.answer(connection.recv()))
        except (OSError, EOFError, AuthenticationError):
            pass  # whoever it was asks again
        finally:
            free.release()

    while not reader.stopped.is_set():
        try:
            accepted, _ = listening.accept()
        except OSError:  # the peer is gone already, or the process has too many files open
            time.sleep(_LOOK_SECONDS)
            continue
        if free.acquire(blocking=False):
            threading.Thread(target=converse, args=(accepted,), daemon=True, name="peer").start()
        else:
            accepted.close()


def run(settings: ReaderSettings, secret: bytes, executor: int, announce: Callable[[str], None]) -> None:
    """Be a reader until it is stopped, its executor ends, or nobody has asked for `settings.orphan_seconds`."""
    steps = Steps()
    writers = Writers(indexer_of(settings, steps), [sink.name for sink in settings.sinks], steps)
    listening = listen(settings.bind or own_address())
    address = address_of(listening)
    reader = Reader(settings.source.name, partial(open_feed, settings.source, settings.checkpoint), writers, address)
    threading.Thread(target=serve, args=(listening, secret, reader), daemon=True, name="server").start()
    _freeze()
    announce(address)
    settled_at = time.monotonic() + _SETTLED_SECONDS
    ended = _end_of(executor)
    while time.monotonic() - reader.asked_at < settings.orphan_seconds and not ended():
        if reader.stopped.wait(_LOOK_SECONDS):
            break
        if time.monotonic() >= settled_at:
            _freeze()
            settled_at = math.inf
    reader.end()


def _end_of(process: int) -> Callable[[], bool]:
    """A function that says whether a process has ended; where the system has no pidfd it says no."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return lambda: True
    except (AttributeError, OSError):
        return lambda: False
    return lambda: bool(select.select([descriptor], [], [], 0)[0])


def _freeze() -> None:
    """Take what stays out of the collections to come: each walks all that is left, and stops every thread meanwhile."""
    gc.collect()
    gc.freeze()


def main() -> None:
    """Run as a process of its own: stdout carries the announcement and nothing else."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    with os.fdopen(os.dup(1), "wb") as stdout:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

        def announce(address: str | Exception) -> None:
            stdout.write(pickle.dumps(address))
            stdout.close()

        try:
            settings, secret, executor = pickle.load(sys.stdin.buffer)  # noqa: S301 - the parent's, over a pipe
            run(settings, secret, executor, announce)
        except Exception as error:
            if stdout.closed:
                raise
            announce(told(error))
    os._exit(0)  # a store's thread may be in a call that never returns


if __name__ == "__main__":
    main()

"""The reader's process: a task starts it, it answers tasks over TCP, and ends when no task asks it any more.

`python -m reader.process` takes settings, a secret and the process id of its executor on stdin, as a pickled tuple, and writes
its address, pickled, to stdout.
"""

from __future__ import annotations

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
from typing import Any

from indexing.garbage import freeze
from reader.channel import address_of, authenticated, listen, own_address
from reader.failures import reportable
from reader.messages import Instruction, ReaderSettings, Stop
from reader.pipeline import Pipeline
from reader.results import Results
from reader.writers import Steps, Writers, indexer_of
from sources.feeds import Feed, open_feed

_SWITCH_SECONDS = 0.0005
"""Longest turn of a thread in the interpreter (default 5 ms): stores are written while records are decoded."""
_MOST_PEERS = 64
"""Most connections at once; more are closed."""
_LOOK_SECONDS = 0.25
_SETTLED_SECONDS = 10.0
"""By then the clients of source, model and stores are open: 41,000 more objects than at the start."""
_END_SECONDS = 1.0
"""Deadline for closing the feed at the end."""


class OtherPartError(ConnectionError):
    """An instruction is for another reader of the query, which had this address before."""


class Reader:
    """Answers tasks by the pipeline of their epoch. It is one part of a query for all its life."""

    def __init__(self, source: str, feed: Callable[[], Feed], writers: Writers, address: str) -> None:
        """Wait for the first instruction; `source` is the source's name in the configuration."""
        self.asked_at = time.monotonic()
        self.stopped = threading.Event()
        self._source, self._feed, self._writers, self._address = source, feed, writers, address
        self._part: int | None = None
        self._epoch: str | None = None
        self._results = Results(writers.indexer.model_counts())
        self._pipeline: Pipeline | None = None
        self._lock = threading.Lock()

    def answer(self, message: Instruction | Stop) -> bytes:
        """The answer to a message, pickled: a harvest, None, or the error that ended the reader.

        Raises OtherPartError for an instruction to another part; it changes nothing, and the task, which gets no answer, starts
        a reader.
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
            except Exception as error:  # noqa: BLE001 - raised in the task
                return pickle.dumps(reportable(error))

    def end(self) -> None:
        """End the pipeline."""
        with self._lock:
            if self._pipeline is not None:
                self._pipeline.end()
                self._pipeline.join(_END_SECONDS)

    def _harvest(self, instruction: Instruction) -> Any:
        if self._pipeline is None or instruction.epoch != self._epoch:
            if self._pipeline is not None:
                self._pipeline.end()
            self._results = Results(self._results.reported_counts)
            self._pipeline = Pipeline(self._source, self._feed, self._writers, self._results)
            self._epoch = instruction.epoch
        self._pipeline.follow(instruction)
        return self._pipeline.harvest(self._address, instruction.batch)


def serve(listening: socket.socket, secret: bytes, reader: Reader) -> None:
    """Answer peers that know the secret, each in a thread of its own, until the reader is stopped; others are closed."""
    free = threading.BoundedSemaphore(_MOST_PEERS)

    def converse(accepted: socket.socket) -> None:
        try:
            with authenticated(accepted, secret) as connection:
                connection.send_bytes(reader.answer(connection.recv()))
        except (OSError, EOFError, AuthenticationError):
            pass  # a task asks again
        finally:
            free.release()

    while not reader.stopped.is_set():
        try:
            accepted, _ = listening.accept()
        except OSError:  # the peer is gone, or the process has too many open files
            time.sleep(_LOOK_SECONDS)
            continue
        if free.acquire(blocking=False):
            threading.Thread(target=converse, args=(accepted,), daemon=True, name="peer").start()
        else:
            accepted.close()


def run(settings: ReaderSettings, secret: bytes, executor: int, announce: Callable[[str], None]) -> None:
    """Run a reader until it is stopped, its executor ends, or no task has asked for `settings.orphan_seconds`."""
    steps = Steps()
    writers = Writers(indexer_of(settings, steps), [sink.name for sink in settings.sinks], steps)
    listening = listen(settings.bind or own_address())
    address = address_of(listening)
    reader = Reader(settings.source.name, partial(open_feed, settings.source, settings.checkpoint), writers, address)
    threading.Thread(target=serve, args=(listening, secret, reader), daemon=True, name="server").start()
    freeze()
    announce(address)
    settled_at = time.monotonic() + _SETTLED_SECONDS
    ended = _end_of(executor)
    while not (
        ended() or reader.stopped.wait(_LOOK_SECONDS) or time.monotonic() - reader.asked_at >= settings.orphan_seconds
    ):
        if time.monotonic() >= settled_at:
            freeze()
            settled_at = math.inf
    reader.end()


def _end_of(process: int) -> Callable[[], bool]:
    """Return a check for the end of a process; where the system has no pidfd it is always False."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return lambda: True
    except (AttributeError, OSError):
        return lambda: False
    return lambda: bool(select.select([descriptor], [], [], 0)[0])


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
            announce(reportable(error))
    os._exit(0)  # a store's thread may be in a call that never returns


if __name__ == "__main__":
    main()

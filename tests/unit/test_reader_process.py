"""What a reader's process answers to whom, over real sockets, in this process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing import AuthenticationError
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
from pyspark.serializers import CPickleSerializer

from embeddings.protocol import EmbeddingCounts
from reader import channel, process, starting
from reader.channel import address_of, ask, listen
from reader.messages import Harvest, Instruction, Stop
from reader.process import Reader, serve
from reader.task import harvest_task
from reader.writers import Steps, Writers
from schemas.errors import ConfigurationError, UnavailableError
from tests.reading import MemoryIndexer, MemoryStream
from tests.waiting import eventually

SECRET = b"s" * 32


class Served:
    """A reader of a stream in memory, behind its server."""

    def __init__(self) -> None:
        self.stream, self.indexer = MemoryStream(), MemoryIndexer("a")
        self.listening = listen("127.0.0.1")
        self.address = address_of(self.listening)
        writers = Writers(cast("Any", self.indexer), ["a"], Steps())
        self.reader = Reader("kafka", self.stream.open, writers, self.address)
        self.thread = threading.Thread(target=serve, args=(self.listening, SECRET, self.reader), daemon=True)
        self.thread.start()

    def ask(self, batch: int, epoch: str = "e", position: int = 0, part: int = 0) -> Harvest:
        answer = ask(self.address, SECRET, Instruction(epoch, batch, part, {"a": {"t/0": position}}))
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Harvest)
        return answer


@pytest.fixture
def served() -> Iterator[Served]:
    server = Served()
    yield server
    server.reader.stopped.set()
    server.listening.shutdown(socket.SHUT_RDWR)
    server.thread.join(5)
    assert not server.thread.is_alive()
    server.listening.close()
    server.reader.end()
    assert eventually(lambda: not [t for t in threading.enumerate() if t.name in {"peer", "feed", "store-a"}])


def test_an_instruction_is_answered_with_what_was_written_though_writes_stand(served: Served) -> None:
    served.stream.add(1)
    assert served.ask(1).address == served.address
    assert eventually(lambda: served.ask(2).positions == {"a": {"t/0": 1}})
    store = served.indexer.memory["a"]
    store.frozen.clear()
    served.stream.add(2)
    assert eventually(lambda: served.stream.feeds[0].fetched == 2)
    assert [served.ask(batch).positions for batch in range(10, 60)] == [{"a": {"t/0": 1}}] * 50
    store.frozen.set()


def test_peer_without_secret_is_refused_and_a_silent_one_keeps_nobody_waiting(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "AUTHENTICATION_SECONDS", 0.5)
    host, port = served.listening.getsockname()
    silent = [socket.create_connection((host, port)) for _ in range(5)]
    with pytest.raises(AuthenticationError):
        ask(served.address, b"w" * 32, Stop())
    stranger = socket.create_connection((host, port))
    stranger.sendall(b"\xff" * 64)
    stranger.close()
    assert served.ask(1).positions == {"a": {"t/0": 0}}
    for peer in silent:
        peer.settimeout(5)
        while peer.recv(1024):
            pass
        peer.close()
    assert not served.reader.stopped.is_set()


def test_more_peers_than_are_served_at_once_are_hung_up_on(served: Served) -> None:
    host, port = served.listening.getsockname()
    silent = [socket.create_connection((host, port)) for _ in range(80)]
    with pytest.raises((OSError, EOFError)):
        served.ask(1)
    for peer in silent:
        peer.close()
    assert eventually(lambda: not [t for t in threading.enumerate() if t.name == "peer"])
    assert served.ask(1).positions == {"a": {"t/0": 0}}


def test_another_epoch_begins_at_its_positions_and_counts_requests_once(served: Served) -> None:
    for number in range(3):
        served.stream.add(number)
    served.indexer.counts = EmbeddingCounts(texts=2)
    assert served.ask(1).model_counts == served.ask(1).model_counts == EmbeddingCounts(texts=2)
    served.indexer.counts = EmbeddingCounts(texts=5)
    assert served.ask(1).model_counts.texts == 5
    assert served.ask(1, "f", 2).model_counts.texts == 0
    served.indexer.counts = EmbeddingCounts(texts=6)
    assert served.ask(2, "f", 2).model_counts.texts == 1
    assert eventually(lambda: served.ask(3, "f").positions == {"a": {"t/0": 3}})
    assert served.indexer.memory["a"].opened == 1
    assert served.indexer.memory["a"].positions["t/0"][-1] == 2


def test_the_error_that_it_died_of_is_the_answer_until_another_epoch(served: Served) -> None:
    served.indexer.memory["a"].error = ConfigurationError("no right to write", hint="grant it")
    served.stream.add(1)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="no right to write\nHint: grant it"):
            eventually(lambda: served.ask(1) is None)
    served.indexer.memory["a"].error = None
    served.ask(1, "f")
    assert eventually(lambda: served.ask(2, "f").positions == {"a": {"t/0": 1}})


def test_an_instruction_for_another_part_is_not_answered_and_changes_nothing(served: Served) -> None:
    served.ask(1, position=5)
    asked_at = served.reader.asked_at
    for epoch in ("e", "f"):
        with pytest.raises((EOFError, ConnectionError)):
            served.ask(2, epoch, part=1)
    assert served.reader.asked_at == asked_at, "nor does it keep the reader alive"
    assert served.ask(2).positions == {"a": {"t/0": 5}}


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_reader_that_ends_while_it_starts_is_told_from_one_that_answers(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "_BOOT", "import os; os._exit(7)")
    with pytest.raises(UnavailableError, match=r"ended while it started, .* \(exit status 7\)"):
        starting.start(cast("Any", "x" * size), SECRET)


def test_what_stays_leaves_garbage_collection_at_the_start_and_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    freeze = Mock()
    monkeypatch.setattr(process, "freeze", freeze)
    monkeypatch.setattr(process, "_SETTLED_SECONDS", 0.0)
    monkeypatch.setattr(process, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(process, "indexer_of", lambda *_: MemoryIndexer())
    settings = SimpleNamespace(
        source=SimpleNamespace(name="s"), sinks=(), checkpoint="", bind="127.0.0.1", orphan_seconds=0.2
    )
    addresses: list[str] = []
    process.run(cast("Any", settings), SECRET, os.getpid(), addresses.append)
    ask(addresses[0], SECRET, Stop())  # ends its server's thread
    assert freeze.call_count == 2


def test_a_task_travels_as_spark_sends_it() -> None:
    assert cast("Any", CPickleSerializer()).dumps(harvest_task(cast("Any", None), {}, SECRET))


def test_it_ends_with_its_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "indexer_of", lambda *_: MemoryIndexer())
    settings = SimpleNamespace(
        source=SimpleNamespace(name="s"), sinks=(), checkpoint="", bind="127.0.0.1", orphan_seconds=3600.0
    )
    addresses: list[str] = []
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as executor:
        running = threading.Thread(
            target=process.run, args=(cast("Any", settings), SECRET, executor.pid, addresses.append), daemon=True
        )
        running.start()
        assert eventually(lambda: addresses)
        assert running.is_alive()
        executor.kill()
    running.join(30)
    assert not running.is_alive()
    ask(addresses[0], SECRET, Stop())  # ends its server's thread


def test_it_is_stopped_by_whoever_knows_the_secret(served: Served) -> None:
    assert ask(served.address, SECRET, Stop()) is None
    assert served.reader.stopped.is_set()

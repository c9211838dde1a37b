"""Vectors that another store of the process holds, where that store is away or silent."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from indexing.peer_vectors import Peer
from schemas.errors import UnavailableError


class Store:
    """Holds a vector of everything; a copy of it shares what it counts."""

    name, fingerprint = "other", "m"

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.closed: list[int] = []
        self.answering = threading.Event()
        self.answering.set()
        self.is_away = False

    def __deepcopy__(self, _: object) -> Store:
        other = Store.__new__(Store)
        other.__dict__ = self.__dict__
        return other

    def vectors(self, names: Sequence[str]) -> dict[str, Any]:
        self.asked.append(list(names))
        assert self.answering.wait(10)
        if self.is_away:
            raise UnavailableError("sink other: it does not answer")
        return {name: np.ones(2, np.float32) for name in names}

    def close(self) -> None:
        self.closed.append(id(self))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("indexing.peer_vectors.PATIENCE_SECONDS", 0.2)
    return Store()


def test_a_peer_gives_its_vectors_as_often_as_it_is_asked(store: Store) -> None:
    peer = Peer(cast("Any", store))
    assert peer.vectors(["a", "b"]).keys() == {"a", "b"}
    assert peer.vectors(["c"]).keys() == {"c"}
    assert store.asked == [["a", "b"], ["c"]]
    peer.close()
    assert len(store.closed) == 1


def test_a_peer_that_is_away_or_silent_has_no_vectors_and_rests(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.is_away = True
    away = Peer(cast("Any", store))
    assert [away.vectors(["a"]), away.vectors(["a"])] == [{}, {}]
    assert store.asked == [["a"]]
    store.is_away = False
    store.answering.clear()
    silent = Peer(cast("Any", store))
    assert [silent.vectors(["b"]), silent.vectors(["b"])] == [{}, {}]
    assert store.asked == [["a"], ["b"]]
    store.answering.set()
    for thread in threading.enumerate():
        if thread.name == "peer-other":
            thread.join(10)
    assert len(store.closed) == 1, "the connections that it kept busy, once it answers"
    monkeypatch.setattr("indexing.peer_vectors.REST_SECONDS", 0.0)
    silent._rests_until = 0.0
    assert silent.vectors(["b"]).keys() == {"b"}

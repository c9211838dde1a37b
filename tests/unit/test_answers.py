"""A model's answers that several stores share: each text is asked once, and what is remembered is bounded."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from embeddings.protocol import Embedding, EmbeddingRejected
from indexing.shared_vectors import SharedEmbeddings
from schemas.errors import UnavailableError


class Model:
    """Answers a vector of one number for each name, and counts."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.failures = 0

    def __call__(self, names: Sequence[str]) -> dict[str, Embedding]:
        with self.lock:
            if self.failures:
                self.failures -= 1
                raise UnavailableError("the model is away")
            self.asked.update(names)
        return {name: np.full(1, int(name), np.float32) for name in names}


def test_text_is_asked_once_however_many_threads_want_it_at_same_time() -> None:
    model, shared, r = Model(), SharedEmbeddings(), random.Random(1)
    groups = [[str(n) for n in r.sample(range(400), 16)] for _ in range(200)]
    with ThreadPoolExecutor(8) as pool:
        embedded = list(pool.map(lambda group: shared.get("m", group, model), groups))
    assert set(model.asked.values()) == {1}
    numbers = [[np.asarray(got[name])[0] for name in group] for got, group in zip(embedded, groups, strict=True)]
    assert numbers == [[float(name) for name in group] for group in groups]


def test_who_waits_for_text_gets_it_even_where_nothing_can_be_remembered() -> None:
    shared, begun, go_on, model = SharedEmbeddings(most_bytes=0), threading.Event(), threading.Event(), Model()

    def slow(names: Sequence[str]) -> dict[str, Embedding]:
        begun.set()
        assert go_on.wait(10)
        return model(names)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(shared.get, "m", ["1", "2"], slow)
        assert begun.wait(10)
        second = pool.submit(shared.get, "m", ["2", "3"], model)
        while not model.asked["3"]:
            assert not second.done()
        go_on.set()
        assert first.result(10).keys() == {"1", "2"}
        assert second.result(10).keys() == {"2", "3"}
    assert model.asked == {"1": 1, "2": 1, "3": 1}
    assert (len(shared), shared.bytes) == (0, 0)


def test_who_waits_for_a_text_asks_itself_once_the_first_has_failed() -> None:
    shared, begun, go_on, model = SharedEmbeddings(), threading.Event(), threading.Event(), Model()

    def failing(_: Sequence[str]) -> dict[str, Embedding]:
        begun.set()
        assert go_on.wait(10)
        raise UnavailableError("the model is away")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(shared.get, "m", ["1"], failing)
        assert begun.wait(10)
        second = pool.submit(shared.get, "m", ["1"], model)
        go_on.set()
        with pytest.raises(UnavailableError):
            first.result(10)
        assert second.result(10).keys() == {"1"}
    assert model.asked == {"1": 1}


def test_what_is_remembered_is_bounded_and_what_was_used_last_stays() -> None:
    shared, model = SharedEmbeddings(most_bytes=200_000), Model()
    for number in range(5_000):
        shared.get("m", [str(number)], model)
        shared.get("m", ["0"], model)
        assert shared.bytes <= 200_000
    assert 300 < len(shared) < 500
    assert model.asked["0"] == 1
    assert shared.known("m", ["0", "1", "4999"]).keys() == {"0", "4999"}
    assert shared.known("another", ["0"]) == {}


def test_a_row_of_a_larger_array_is_remembered_without_the_array() -> None:
    shared, matrix = SharedEmbeddings(), np.ones((100, 1_000), np.float32)
    shared.get("m", ["1"], lambda names: dict.fromkeys(names, matrix[0]))
    kept = shared.known("m", ["1"])["1"]
    assert isinstance(kept, np.ndarray)
    assert kept.base is None


def test_a_refused_text_is_remembered_too() -> None:
    shared, asked = SharedEmbeddings(), list[str]()

    def refuse(names: Sequence[str]) -> dict[str, Embedding]:
        asked.extend(names)
        return {name: EmbeddingRejected("MODEL_REFUSED_TEXT", "no") for name in names}

    for _ in range(3):
        (embedding,) = shared.get("m", ["1"], refuse).values()
        assert isinstance(embedding, EmbeddingRejected)
    assert asked == ["1"]

"""Packing texts into requests, alone and across the batches of a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embeddings.batching import pack
from embeddings.parts import in_parts
from embeddings.protocol import TEXT_TOO_LONG, Embedding, EmbeddingCounts, EmbeddingRejected, Vector
from embeddings.stream import REQUESTS_AHEAD, TEXTS_AHEAD, embed_batches
from embeddings.vectors import checked


class RecordingEmbedder:
    """Gives a text its length as a vector, refuses the text `bad`, and keeps what it was asked."""

    fingerprint = "length"
    dimensions = 1

    def __init__(self, max_items: int = 96) -> None:
        self.max_items = max_items
        self.max_tokens = 8192
        self.asked: list[list[str]] = []

    def embed_documents(self, texts: Sequence[str]) -> list[Embedding]:
        self.asked += [list(request) for request in pack(texts, max_items=self.max_items, max_bytes=1_000_000)]
        return [EmbeddingRejected("BAD", "no") if text == "bad" else self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> Vector:
        return np.array([len(text)], np.float32)

    def check(self) -> None:
        """Always fine."""

    def counts(self) -> EmbeddingCounts:
        return EmbeddingCounts(len(self.asked), sum(map(len, self.asked)))


def test_equal_texts_travel_once_in_order_of_first_sight() -> None:
    assert list(pack("abacab", max_items=2, max_bytes=100)) == [("a", "b"), ("c",)]


def test_a_request_ends_at_the_limit_of_bytes_counted_as_utf8() -> None:
    assert list(pack(["ab", "é", "c"], max_items=9, max_bytes=4)) == [("ab", "é"), ("c",)]


def test_a_text_above_the_limit_of_bytes_travels_alone() -> None:
    assert list(pack(["a", "bbbbbb", "c"], max_items=9, max_bytes=4)) == [("a",), ("bbbbbb",), ("c",)]


def test_no_text_is_no_request() -> None:
    assert list(pack([], max_items=9, max_bytes=4)) == []


@given(st.lists(st.text(st.characters(), max_size=5)), st.integers(1, 7), st.integers(1, 20))
def test_packing_keeps_every_distinct_text_once_within_the_limits(texts: list[str], items: int, size: int) -> None:
    requests = list(pack(texts, max_items=items, max_bytes=size))
    assert [text for request in requests for text in request] == list(dict.fromkeys(texts))
    assert all(len(request) <= items for request in requests)
    assert all(
        len(request) == 1 or sum(len(text.encode("utf-8", "surrogatepass")) for text in request) <= size
        for request in requests
    )


texts_or_null = st.none() | st.sampled_from(["bad", *map(str, range(40))])


@given(st.lists(st.lists(texts_or_null, max_size=30), max_size=40), st.integers(1, 9))
def test_a_stream_comes_back_as_it_went_in(batches: list[list[str | None]], items: int) -> None:
    embedder = RecordingEmbedder(items)
    embedded = list(embed_batches(batches, embedder))
    assert [[_seen(embedding) for embedding in batch] for batch in embedded] == [
        [None if text is None else "BAD" if text == "bad" else len(text) for text in batch] for batch in batches
    ]
    sent = [text for request in embedder.asked for text in request]
    assert sorted(sent) == sorted({text for batch in batches for text in batch if text is not None})


def test_small_batches_fill_whole_requests() -> None:
    embedder = RecordingEmbedder(96)
    batches = [[f"text {10 * batch + row}" for row in range(10)] for batch in range(500)]
    assert sum(map(len, embed_batches(batches, embedder))) == 5000
    assert [len(request) for request in embedder.asked[:-1]] == [96] * (len(embedder.asked) - 1)
    assert 5000 / len(embedder.asked) / 96 >= 0.9


def test_a_stream_is_read_only_so_far_ahead() -> None:
    embedder = RecordingEmbedder(1)
    taken = 0

    def batches() -> Iterator[list[str]]:
        nonlocal taken
        for batch in range(1000):
            taken += 10
            yield [f"text {10 * batch + row}" for row in range(10)]

    next(embed_batches(batches(), embedder))
    assert taken <= max(TEXTS_AHEAD, REQUESTS_AHEAD) + 10


def test_a_text_that_comes_again_much_later_is_sent_again() -> None:
    embedder = RecordingEmbedder(1)
    batches = [[f"text {row}" for row in range(300)], [f"other {row}" for row in range(300)], ["text 0", "other 299"]]
    embedded = list(embed_batches(batches, embedder, cached=100))
    assert [_seen(embedding) for embedding in embedded[2]] == [6, 9]
    assert sum(request == ["text 0"] for request in embedder.asked) == 2
    assert sum(request == ["other 299"] for request in embedder.asked) == 1


def _seen(embedding: Embedding | None) -> object:
    if isinstance(embedding, EmbeddingRejected):
        return embedding.condition
    return None if embedding is None else embedding[0]


def limited(most: int, asked: list[str]) -> Callable[[Sequence[str]], dict[str, Embedding]]:
    """A model that takes so many characters; the vector of a text is its share of the letter x."""

    def ask(texts: Sequence[str]) -> dict[str, Embedding]:
        asked.extend(texts)
        return {
            text: EmbeddingRejected(TEXT_TOO_LONG, "")
            if len(text) > most
            else EmbeddingRejected("MODEL_REFUSED_TEXT", "")
            if "refused" in text
            else checked([1.0, text.count("x") / len(text)], 2)
            for text in texts
        }

    return ask


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text("ax .\n", min_size=1, max_size=300).filter(lambda text: bool(text.strip())), max_size=5),
    most=st.integers(20, 60),
)
def test_a_long_text_has_its_parts_mean_and_no_part_comes_twice(texts: list[str], most: int) -> None:
    asked: list[str] = []
    embeddings = in_parts(texts, limited(most, asked), 250)
    assert all(isinstance(embeddings[text], np.ndarray) for text in texts)
    assert len(asked) == len(set(asked))
    for text in texts:
        if len(text) <= most:
            assert text in asked
        assert np.linalg.norm(np.asarray(embeddings[text])) == pytest.approx(1, abs=1e-6) or len(text) <= most
    assert in_parts(texts, limited(most, []), 250).keys() == embeddings.keys()


def test_part_that_is_refused_or_stays_too_long_rejects_the_whole_text() -> None:
    embeddings = in_parts(["x " * 100 + "refused"], limited(60, []), 1000)
    assert [e.condition for e in embeddings.values() if isinstance(e, EmbeddingRejected)] == ["MODEL_REFUSED_TEXT"]
    asked: list[str] = []
    embeddings = in_parts(["x" * 1000], limited(2, asked), 1000)
    assert [e.condition for e in embeddings.values() if isinstance(e, EmbeddingRejected)] == [TEXT_TOO_LONG]
    assert len(asked) < 50

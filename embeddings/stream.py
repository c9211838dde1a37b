"""Embed a stream of batches of texts in full requests: each distinct text once, packed across batches. No Spark."""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from embeddings.protocol import Embedder, Embedding

CACHED = 16_384
"""Distinct texts whose vectors are cached: 64 MiB at 1024 dimensions."""

REQUESTS_AHEAD = 8
TEXTS_AHEAD = 256
"""The least number of texts that are read ahead, so that requests stay in flight whatever their size."""


def embed_batches(
    batches: Iterable[Sequence[str | None]], embedder: Embedder, *, cached: int = CACHED
) -> Iterator[list[Embedding | None]]:
    """Yield one list of embeddings a batch, aligned with its texts and in order; a null text has none.

    Batches are read ahead so that every request but the last is full, however small the batches are. A text is sent
    once, unless it recurs after `cached` other distinct ones.
    """
    waiting = _Waiting(embedder, cached)
    enough = max(TEXTS_AHEAD, REQUESTS_AHEAD * embedder.max_items)
    for batch in batches:
        waiting.add(batch)
        if len(waiting) >= enough:
            waiting.embed(len(waiting) // embedder.max_items * embedder.max_items)
        yield from waiting.finished()
    waiting.embed(len(waiting))
    yield from waiting.finished()


@dataclass(slots=True)
class _Batch:
    embeddings: list[Embedding | None]
    missing: int = 0


@dataclass(slots=True)
class _Waiting:
    """Batches that were not yielded yet, and the distinct texts that they wait for."""

    embedder: Embedder
    cached: int
    batches: deque[_Batch] = field(default_factory=deque)
    places: dict[str, list[tuple[_Batch, int]]] = field(default_factory=dict)
    recent: OrderedDict[bytes, Embedding] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self.places)

    def add(self, texts: Sequence[str | None]) -> None:
        """Add a batch: fill in cached embeddings, register the places of the others."""
        batch = _Batch([None] * len(texts))
        for row, text in enumerate(texts):
            if text is None:
                continue
            if (known := self.recent.get(_digest(text))) is not None:
                batch.embeddings[row] = known
            else:
                self.places.setdefault(text, []).append((batch, row))
                batch.missing += 1
        self.batches.append(batch)

    def embed(self, count: int) -> None:
        """Embed the `count` oldest texts, and fill in their places."""
        texts = [text for text, _ in zip(self.places, range(count), strict=False)]
        for text, embedding in zip(texts, self.embedder.embed_documents(texts), strict=True):
            for batch, row in self.places.pop(text):
                batch.embeddings[row] = embedding
                batch.missing -= 1
            self.recent[_digest(text)] = embedding
        while len(self.recent) > self.cached:
            self.recent.popitem(last=False)

    def finished(self) -> Iterator[list[Embedding | None]]:
        """Yield the complete batches at the front."""
        while self.batches and self.batches[0].missing == 0:
            yield self.batches.popleft().embeddings


def _digest(text: str) -> bytes:
    """A cache key of 16 bytes, whatever the text's length."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()

"""Whether a model call is needed: for texts whose vector neither the store, nor this process, nor a cache has (I9)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import batched
from typing import Protocol

import numpy as np

from embeddings.protocol import Embedder, Embedding, EmbeddingRejected
from embeddings.vectors import checked
from indexing.shared_vectors import SharedEmbeddings
from schemas.errors import ModelUnavailableError, UnavailableError
from sinks.protocol import StoredVectors


class VectorCache(Protocol):
    """Embedded vectors by content hash, kept beside the stores."""

    def get(self, content_hashes: Collection[str]) -> Mapping[str, np.ndarray]:
        """The vectors it has of these."""

    def add(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep new vectors; they are kept when it returns."""


@dataclass(frozen=True, slots=True)
class MemoryCache:
    """A `VectorCache` in this process's memory."""

    vectors: dict[str, np.ndarray] = field(default_factory=dict)

    def get(self, content_hashes: Collection[str]) -> dict[str, np.ndarray]:
        """The vectors it has of these."""
        return {name: self.vectors[name] for name in content_hashes if name in self.vectors}

    def add(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep new vectors."""
        self.vectors.update(vectors)


@dataclass(slots=True)
class MissingVectors:
    """Gives stores the vectors that they miss.

    A text is sent to the model only when neither the store nor the cache has its vector, `texts_at_once` at a time, and
    those vectors are kept before more are asked for. `on_step` is called with the name of each step as it begins.
    """

    embedder: Embedder
    cache: VectorCache
    texts_at_once: int
    on_step: Callable[[str], None] = lambda _: None
    embeddings: SharedEmbeddings = field(default_factory=SharedEmbeddings)
    """Of the latest texts; shared by the writers of a process."""
    counts: Counter[str] = field(default_factory=Counter)
    """texts (of added chunks), texts cached, texts embedded."""

    def embed(self, texts: Mapping[str, str], sink: StoredVectors) -> dict[str, EmbeddingRejected]:
        """Give the store its missing vectors, from memory or cache, else from the model; return the refusals by hash."""
        missing = sink.missing_vectors(sorted(texts))
        known = self.embeddings.known(self.embedder.fingerprint, missing)
        lacking = missing - known.keys()
        cached = self.cache.get(lacking) if lacking else {}
        # A vector that was cached before vectors were checked may be one that no search finds.
        known |= {h: v for h, v in cached.items() if isinstance(checked(v, self.embedder.dimensions), np.ndarray)}
        refused = _keep(sink, known)
        before = self.counts["texts embedded"]
        wanted = (h for h in texts if h in missing and h not in known)
        for group in batched(wanted, self.texts_at_once):
            self.on_step("embed")  # also while another store's request has the same text
            embedded = self.embeddings.get(self.embedder.fingerprint, group, lambda names: self._ask(names, texts))
            self.on_step("keep")
            refused |= _keep(sink, embedded)
        self.counts["texts"] += len(texts)
        self.counts["texts cached"] += len(missing) - (self.counts["texts embedded"] - before)
        return refused

    def _ask(self, wanted: Sequence[str], texts: Mapping[str, str]) -> dict[str, Embedding]:
        """Ask the model, and keep its vectors in the cache."""
        try:
            embedded = dict(zip(wanted, self.embedder.embed_documents([texts[h] for h in wanted]), strict=True))
        except UnavailableError as error:
            raise ModelUnavailableError(error.message, condition=error.condition, hint=error.hint) from error
        self.cache.add({h: e for h, e in embedded.items() if isinstance(e, np.ndarray)})
        self.counts["texts embedded"] += len(wanted)
        return embedded


def _keep(sink: StoredVectors, embedded: Mapping[str, Embedding]) -> dict[str, EmbeddingRejected]:
    """Keep vectors in the store; return the refusals among the embeddings."""
    if vectors := {h: e for h, e in embedded.items() if isinstance(e, np.ndarray)}:
        sink.keep_vectors(vectors)
    return {h: e for h, e in embedded.items() if isinstance(e, EmbeddingRejected)}

"""Whether a model call is needed: for texts whose vector neither the store, nor this process, nor a cache has (I9)."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from embeddings.budget.budget import Budget, BudgetUsedUpError
from embeddings.budget.reservations import LONG_SECONDS
from embeddings.protocol import Embedder, Embedding, EmbeddingRejected
from embeddings.vectors import checked
from indexing.shared_vectors import SharedEmbeddings
from schemas.errors import ModelUnavailableError, UnavailableError
from sinks.protocol import StoredVectors
from transforms.documents.chunking import tokens


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
    patience: float | None = None
    """Seconds after which texts that the model's budget does not let through are left for later; None: they are waited for."""
    left: set[str] = field(default_factory=set)
    """Hashes of the texts that the last call of `embed` left."""
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
        remaining, began = [h for h in texts if h in missing and h not in known], time.monotonic()
        self.left = set()
        while remaining:
            size = self.texts_at_once
            if seconds := self._budget_seconds(texts, remaining[:size]):
                size = self.embedder.max_items
                seconds = self._budget_seconds(texts, remaining[:size])
            if seconds > LONG_SECONDS or (seconds and time.monotonic() - began >= (self.patience or 0)):
                self.left = set(remaining)
                break
            self.on_step("embed")  # also while another store's request has the same text
            group = remaining[:size]
            try:
                embedded = self.embeddings.get(self.embedder.fingerprint, group, lambda names: self._ask(names, texts))
            except BudgetUsedUpError:
                self.left = set(remaining)
                break
            self.on_step("keep")
            remaining = remaining[size:]
            refused |= _keep(sink, embedded)
        sent = self.counts["texts embedded"] - before
        self.counts["texts"] += sent if self.left else len(texts)
        self.counts["texts cached"] += 0 if self.left else len(missing) - sent
        return refused

    def _budget_seconds(self, texts: Mapping[str, str], group: Sequence[str]) -> float:
        """How long these texts would wait for the model's budget; 0 where all are waited for, however long it takes."""
        budget: Budget | None = getattr(self.embedder, "budget", None)
        if budget is None or self.patience is None:
            return 0.0
        try:
            return budget.state(sum(tokens(texts[h]) for h in group)).grant.seconds
        except UnavailableError:
            return math.inf

    def _ask(self, hashes: Sequence[str], texts: Mapping[str, str]) -> dict[str, Embedding]:
        """Ask the model, and keep its vectors in the cache."""
        try:
            embedded = dict(zip(hashes, self.embedder.embed_documents([texts[h] for h in hashes]), strict=True))
        except BudgetUsedUpError:
            raise
        except UnavailableError as error:
            raise ModelUnavailableError(error.message, condition=error.condition, hint=error.hint) from error
        self.cache.add({h: e for h, e in embedded.items() if isinstance(e, np.ndarray)})
        self.counts["texts embedded"] += len(hashes)
        return embedded


def _keep(sink: StoredVectors, embedded: Mapping[str, Embedding]) -> dict[str, EmbeddingRejected]:
    """Keep vectors in the store; return the refusals among the embeddings."""
    if vectors := {h: e for h, e in embedded.items() if isinstance(e, np.ndarray)}:
        sink.keep_vectors(vectors)
    return {h: e for h, e in embedded.items() if isinstance(e, EmbeddingRejected)}

"""A store that says when it is about to write and when it has written, and vectors that no model is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embeddings.protocol import Embedding, EmbeddingCounts, Vector
from transforms.documents.planning import digest

if TYPE_CHECKING:
    from schemas.documents import DocumentWrite
    from sinks.protocol import Sink

STEPS = ("read", "truncate", "truncated", "keep", "kept", "write", "written", "indexed")
"""Where a process that writes a store dies: before and after each durable step of it."""


class Watched:
    """A sink that names its durable steps; all else is the sink's own."""

    def __init__(self, sink: Sink, on_step: Callable[[str], None]) -> None:
        """Take the sink."""
        self._sink, self._on_step = sink, on_step

    def __getattr__(self, name: str) -> Any:
        """Everything else is as it is."""
        return getattr(self._sink, name)

    def truncate(self, table: str, sequence: str) -> None:
        """As `Sink.truncate`."""
        self._on_step("truncate")
        self._sink.truncate(table, sequence)
        self._on_step("truncated")

    def keep_vectors(self, vectors: Mapping[str, np.ndarray], *, replace: bool = False) -> None:
        """As `Sink.keep_vectors`."""
        self._on_step("keep")
        self._sink.keep_vectors(vectors, replace=replace)
        self._on_step("kept")

    def write(self, writes: Sequence[DocumentWrite]) -> set[str]:
        """As `Sink.write`."""
        self._on_step("write")
        refused = self._sink.write(writes)
        self._on_step("written")
        return refused


class HashEmbedder:
    """Vectors made from the text's digest, in this process: no model is asked, and no text leaves it."""

    fingerprint, dimensions, max_items, max_tokens = "ragstream converge", 8, 256, 8192

    def embed_documents(self, texts: Sequence[str]) -> list[Embedding]:
        """One vector a text."""
        return [vector_of(text) for text in texts]

    def embed_query(self, text: str) -> Vector:
        """The same vector."""
        return vector_of(text)

    def check(self) -> None:
        """Nothing can be wrong with it."""

    def counts(self) -> EmbeddingCounts:
        """It sends no request."""
        return EmbeddingCounts()


def vector_of(text: str) -> Vector:
    """The unit vector of a text, of eight dimensions."""
    numbers = np.frombuffer(bytes.fromhex(digest(text))[:16], ">u2").astype(np.float32) + 1
    unit: Vector = (numbers / np.linalg.norm(numbers)).astype(np.float32)
    return unit

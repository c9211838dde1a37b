"""A document as DocumentDB stores it: written, and read back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from schemas.documents import DocumentWrite, StoredChunk, StoredDocument
from sinks.pgvector.rows import document_row, stored_state
from transforms.documents.languages import OWN, language_key, mark_of, marked
from transforms.documents.words import words_of

HASHES = "chunks.content_hash"
READ = ("revision", "state", "texts", "recipe", "chunks.chunk_id", "chunks.chunk_index", HASHES)
"""The fields that `stored` needs."""

VECTOR = ("embedding", "aside")
"""The fields that `vector_of` needs."""


def fields_of(write: DocumentWrite, language: str, write_id: str, now_ms: int) -> dict[str, Any]:
    """The fields that a write sets; unchanged ones of an existing document are left out. `language` is the store's own.

    `write_id` marks the document, so that its writer can tell that the write was accepted. The state is ASCII JSON, as in
    PostgreSQL, so that U+0000 and lone surrogates survive.
    """
    row = document_row(write)
    names = ("table", "key", "sequence", "live", "metadata", "metadata_terms", "state", "recipe", "pending")
    fields = {name: row[name] for name in names if name in row}
    fields |= {
        "revision": write.next_revision(), "commit_time_us": write.state.commit_time_us, "written_at": now_ms,
        "written_by": write_id,
    }  # fmt: skip
    if row["texts_changed"]:
        fields["texts"] = row["texts"]
    if write.added or write.moved or write.dropped or not write.base_revision:
        chunks = [
            {"chunk_id": c.chunk_id, "chunk_index": c.chunk_index, "content_hash": c.content_hash,
             "chunk_text": c.chunk_text, "words": words_in(c.chunk_text, language_key(write.language, language), language)}
            for c in write.chunks
        ]  # fmt: skip
        fields |= {"chunks": chunks, "chunk_count": len(chunks)}
    return fields


def words_in(text: str, language: str, own: str) -> list[str]:
    """The words of a chunk as they are stored, in the language of that key; `own` is the store's own."""
    words = [marked(word, language) for word in words_of(text, language or own)]
    return words if language == OWN else [mark_of(language), *words]


def stored(document: Mapping[str, Any]) -> StoredDocument:
    """A document from its stored fields."""
    places = (StoredChunk(c["chunk_id"], c["chunk_index"], c["content_hash"]) for c in document.get("chunks", ()))
    state = stored_state(document["state"], document["texts"])
    return StoredDocument(document["_id"], document["revision"], state, document["recipe"], tuple(places))


def vector_of(document: Mapping[str, Any]) -> np.ndarray:
    """A stored vector, whether it is in the index or not."""
    return decoded(document.get("embedding") or document["aside"])


def encoded(vector: np.ndarray) -> list[float]:
    """A vector as DocumentDB indexes it: float64 numbers, which represent float32 exactly."""
    return [float(number) for number in vector]


def decoded(numbers: list[float]) -> np.ndarray:
    """The inverse of `encoded`."""
    return np.asarray(numbers, "<f4")

"""How a document is written down in DocumentDB, and read back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from schemas.documents import StoredChunk, StoredDocument
from sinks.metadata_terms import metadata_terms
from sinks.pgvector.rows import head_row, stored_state
from transforms.documents.words import words_of

if TYPE_CHECKING:
    from schemas.documents import DocumentWrite

READ = ("revision", "state", "texts", "recipe", "chunks.chunk_id", "chunks.chunk_index", "chunks.content_hash")
"""The fields that `stored` needs."""

VECTOR = ("embedding", "aside")
"""The fields that `vector_in` needs."""


def head(write: DocumentWrite, language: str, by: str, now_ms: int) -> dict[str, Any]:
    """The fields that a write sets; what did not change of a document that is there is not among them.

    `by` names the write, so that its writer knows it again. States are JSON in ASCII, as in PostgreSQL, so that U+0000 and
    lone surrogates survive.
    """
    row = head_row(write)
    names = ("table", "key", "sequence", "live", "metadata", "state", "recipe", "pending")
    fields = {name: row[name] for name in names if name in row}
    fields |= {
        "revision": write.base_revision + 1, "metadata_terms": metadata_terms(write.metadata),
        "commit_time_us": write.state.commit_time_us, "written_at": now_ms, "written_by": by,
    }  # fmt: skip
    if row["texts_changed"]:
        fields["texts"] = row["texts"]
    if write.added or write.moved or write.dropped or not write.base_revision:
        chunks = [
            {"chunk_id": c.chunk_id, "chunk_index": c.chunk_index, "content_hash": c.content_hash,
             "chunk_text": c.chunk_text, "words": words_of(c.chunk_text, language)}
            for c in write.chunks
        ]  # fmt: skip
        fields |= {"chunks": chunks, "chunk_count": len(chunks)}
    return fields


def stored(found: Mapping[str, Any]) -> StoredDocument:
    """A document as the store tells of it."""
    places = (StoredChunk(c["chunk_id"], c["chunk_index"], c["content_hash"]) for c in found.get("chunks", ()))
    state = stored_state(found["state"], found["texts"])
    return StoredDocument(found["_id"], found["revision"], state, found["recipe"], tuple(places))


def vector_in(kept: Mapping[str, Any]) -> np.ndarray:
    """A kept vector, also while it is set aside, out of the index."""
    return decoded(kept.get("embedding") or kept["aside"])


def encoded(vector: np.ndarray) -> list[float]:
    """A vector as an index of DocumentDB takes it: numbers of 64 bits, in which those of 32 stay what they are."""
    return [float(number) for number in vector]


def decoded(numbers: list[float]) -> np.ndarray:
    """A kept vector."""
    return np.asarray(numbers, "<f4")

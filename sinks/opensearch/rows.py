"""A document as OpenSearch stores it: written, guarded in Python, and read back. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from schemas.documents import DocumentWrite, StoredChunk, StoredDocument
from sinks.opensearch.schema import text_field
from transforms.documents.languages import OWN
from transforms.filters.terms import terms_of
from transforms.fold import encode, restore
from transforms.values import exact_json

READ = ("revision", "state", "recipe", "chunks.chunk_id", "chunks.chunk_index", "chunks.content_hash")
"""The fields that `stored` needs."""


def change(write: DocumentWrite, vectors: Mapping[str, np.ndarray], language: str = OWN) -> dict[str, Any]:
    """The parameters of the guard script: the base revision, the new document row, and the chunks to add, move and drop.

    `language` is the key of the chunks' language. The state is ASCII JSON, so that U+0000 and lone surrogates survive.
    """
    return {
        "base": write.base_revision,
        "revision": write.next_revision(),
        "sequence": write.state.newest,
        "row": {
            "document_id": write.document_id, "table_name": write.table, "key": exact_json.storable(exact_json.loads(write.key)),
            "sequence": write.state.newest, "live": write.live, "metadata": exact_json.storable(dict(write.metadata)),
            "metadata_terms": terms_of(write.metadata, write.unresolved), "state": exact_json.dumps(encode(write.state)),
            "recipe": write.spec_digest, "pending": list(write.unresolved), "commit_time_us": write.state.commit_time_us,
        },
        "added": [
            {"chunk_id": c.chunk_id, "chunk_index": c.chunk_index, "content_hash": c.content_hash,
             "chunk_text": c.chunk_text, "embedding": vectors[c.content_hash],
             **({"language": language, text_field(language): c.chunk_text} if language != OWN else {})}
            for c in write.added
        ],
        "moved": {c.chunk_id: c.chunk_index for c in write.moved},
        "dropped": list(write.dropped),
    }  # fmt: skip


def replaced(document: Mapping[str, Any] | None, params: Mapping[str, Any], now_ms: int) -> dict[str, Any] | None:
    """The document after `sinks.opensearch.schema.GUARD` with these parameters; None if the guard refuses."""
    revision, sequence = (document["revision"], document["sequence"]) if document else (0, "")
    if params["base"] != revision or sequence > params["sequence"]:
        return None
    dropped = set(params["dropped"])
    left = [
        chunk | {"chunk_index": params["moved"].get(chunk["chunk_id"], chunk["chunk_index"])}
        for chunk in (document["chunks"] if document else [])
        if chunk["chunk_id"] not in dropped
    ]
    chunks = sorted([*left, *params["added"]], key=lambda chunk: chunk["chunk_index"])
    counted = {"revision": params["revision"], "chunks": chunks, "chunk_count": len(chunks), "written_at": now_ms}
    return {**params["row"], **counted}


def stored(document_id: str, source: Mapping[str, Any]) -> StoredDocument:
    """A document from its stored fields."""
    places = (StoredChunk(c["chunk_id"], c["chunk_index"], c["content_hash"]) for c in source.get("chunks", ()))
    state = restore(exact_json.loads(source["state"]))
    return StoredDocument(document_id, source["revision"], state, source["recipe"], tuple(places))


def encoded(vector: np.ndarray) -> str:
    """A vector as it is stored: little-endian float32 in base64."""
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()


def decoded(text: str) -> np.ndarray:
    """The inverse of `encoded`."""
    return np.frombuffer(base64.b64decode(text), "<f4")

"""The audit of a store in DocumentDB, read a batch at a time: DocumentDB cannot compute SHA-256."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import batched
from typing import Any

from schemas.documents import HAS_VECTOR, ActualDocument
from sinks.digests import actual_document, vector_hash
from sinks.documentdb.client import DocumentDBClient
from sinks.documentdb.rows import decoded
from sinks.documentdb.schema import Names, newer

_READ = (
    "table", "key", "sequence", "revision", "live", "recipe", "metadata",
    "chunks.chunk_id", "chunks.chunk_index", "chunks.content_hash", "chunks.chunk_text",
)  # fmt: skip
_AT_ONCE = 200
"""Documents whose vectors are fetched by one request."""


def actual_documents(
    client: DocumentDBClient, names: Names, truncations: Mapping[str, str], bucket: str = "", *, vectors: bool
) -> Iterator[ActualDocument]:
    """Documents whose names begin with `bucket`; values of vectors are fetched only if `vectors`.

    A vector that is out of the index counts as missing: no search finds its chunk.
    """
    within = {"_id": {"$gte": bucket, "$lt": f"{bucket}\U0010ffff"}} if bucket else {}
    documents = client.find(names.documents, newer(truncations) | within, _READ)
    for page in batched(documents, _AT_ONCE):
        hashes = sorted(
            {c["content_hash"] for document in page for c in document.get("chunks", ()) if "content_hash" in c}
        )
        stored = client.get(names.vectors, hashes, ["embedding"] if vectors else ["is_aside"])
        by_hash = {name: _vector(vector, values=vectors) for name, vector in stored.items()}
        for document in page:
            name = str(document["_id"])
            yield actual_document(name, {**document, "document_id": name}, partial(_vector_of, by_hash))


def _vector_of(by_hash: Mapping[str, str], chunk: Mapping[str, Any]) -> str:
    return by_hash.get(chunk.get("content_hash", ""), "")


def _vector(document: Mapping[str, Any], *, values: bool) -> str:
    if values:
        return vector_hash(decoded(document["embedding"])) if "embedding" in document else ""
    return "" if "is_aside" in document else HAS_VECTOR

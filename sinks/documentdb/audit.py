"""What a store in DocumentDB really holds, read a batch at a time: it has no digest to add up with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import batched
from typing import TYPE_CHECKING, Any

from schemas.documents import HAS_VECTOR, HeldChunk, HeldDocument
from sinks.digests import vector_hash
from sinks.documentdb.rows import decoded
from sinks.documentdb.schema import newer
from transforms.documents.planning import digest

if TYPE_CHECKING:
    from sinks.documentdb.client import DocumentDBClient
    from sinks.documentdb.schema import Names

_READ = (
    "table", "key", "sequence", "revision", "live", "recipe", "metadata",
    "chunks.chunk_id", "chunks.chunk_index", "chunks.content_hash", "chunks.chunk_text",
)  # fmt: skip
_AT_ONCE = 200
"""Documents whose vectors are asked for together."""


def held(
    client: DocumentDBClient, names: Names, truncations: Mapping[str, str], bucket: str = "", *, vectors: bool
) -> Iterator[HeldDocument]:
    """Documents whose names begin with `bucket`; values of vectors travel only where they are asked for.

    A vector that is set aside is none: no search finds the chunk.
    """
    within = {"_id": {"$gte": bucket, "$lt": f"{bucket}\U0010ffff"}} if bucket else {}
    found = client.find(names.documents, newer(truncations) | within, _READ)
    for some in batched(found, _AT_ONCE):
        hashes = sorted(
            {c["content_hash"] for document in some for c in document.get("chunks", ()) if "content_hash" in c}
        )
        kept = client.named(names.vectors, hashes, ["embedding"] if vectors else ["is_aside"])
        told = {name: _told(vector, values=vectors) for name, vector in kept.items()}
        yield from (_document(document, told) for document in some)


def _told(vector: Mapping[str, Any], *, values: bool) -> str:
    if values:
        return vector_hash(decoded(vector["embedding"])) if "embedding" in vector else ""
    return "" if "is_aside" in vector else HAS_VECTOR


def _document(found: Mapping[str, Any], vectors: Mapping[str, str]) -> HeldDocument:
    """A document as it stands; somebody else's may lack fields."""
    name = str(found["_id"])
    chunks = (
        HeldChunk(
            chunk.get("chunk_id", ""),
            chunk.get("chunk_index", 0),
            chunk.get("content_hash", ""),
            digest(chunk.get("chunk_text", "")),
            vectors.get(chunk.get("content_hash", ""), ""),
        )
        for chunk in found.get("chunks", ())
    )
    texts = {field: found.get(field, "") for field in ("table", "key", "sequence", "recipe", "metadata")}
    numbers = {"revision": found.get("revision", 0), "live": found.get("live", False)}
    return HeldDocument(name=name, document_id=name, **texts, **numbers, chunks=tuple(chunks))

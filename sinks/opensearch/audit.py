"""What a store in OpenSearch really holds, read page by page: it has no digest to add up with."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from schemas.documents import HAS_VECTOR, HeldChunk, HeldDocument
from sinks.digests import vector_hash
from sinks.opensearch.schema import covered
from transforms.documents.planning import digest

if TYPE_CHECKING:
    from sinks.opensearch.client import OpenSearchClient
    from sinks.opensearch.schema import Names

_HEAD = ("document_id", "table_name", "key", "sequence", "revision", "live", "recipe", "metadata")
_CHUNK = ("chunks.chunk_id", "chunks.chunk_index", "chunks.content_hash", "chunks.chunk_text")
_VECTOR = "chunks.embedding"
_WITH_VECTORS_AT_ONCE = 100
"""Documents of a page: a vector of 1,024 dimensions takes 12.7 kB as JSON."""


def held(
    client: OpenSearchClient, names: Names, truncations: Mapping[str, str], bucket: str = "", *, vectors: bool
) -> Iterator[HeldDocument]:
    """Documents whose ids begin with `bucket`, in their order, as searchable; vectors travel only where they are asked for."""
    within: dict[str, Any] = {"prefix": {"document_id": bucket}} if bucket else {"match_all": {}}
    query = {"bool": {"filter": [within], "must_not": covered(truncations)}}
    bare = frozenset[str]() if vectors else _without_vector(client, names, query)
    fields = (*_HEAD, *_CHUNK, _VECTOR) if vectors else (*_HEAD, *_CHUNK)
    size = _WITH_VECTORS_AT_ONCE if vectors else None
    for page in client.pages(names.documents, query, ("document_id",), fields, size=size):
        for hit in page:
            yield _document(hit, bare, vectors=vectors)


def _without_vector(client: OpenSearchClient, names: Names, query: Mapping[str, Any]) -> frozenset[str]:
    """Names of documents with a chunk that has no vector: none, as a rule."""
    lacking = {
        "bool": {"filter": [{"exists": {"field": "chunks.chunk_id"}}], "must_not": [{"exists": {"field": _VECTOR}}]}
    }
    both = {"bool": {"filter": [query, {"nested": {"path": "chunks", "query": lacking}}]}}
    pages = client.pages(names.documents, both, ("document_id",), ())
    return frozenset(hit["_id"] for page in pages for hit in page)


def _document(hit: Mapping[str, Any], bare: Collection[str], *, vectors: bool) -> HeldDocument:
    """A document as it stands; somebody else's may lack fields."""
    source, name = hit["_source"], hit["_id"]
    held = name not in bare

    def vector(chunk: Mapping[str, Any]) -> str:
        if vectors:
            return vector_hash(np.asarray(chunk["embedding"], np.float32)) if chunk.get("embedding") else ""
        return HAS_VECTOR if held else ""

    chunks = (
        HeldChunk(
            chunk.get("chunk_id", ""),
            chunk.get("chunk_index", 0),
            chunk.get("content_hash", ""),
            digest(chunk.get("chunk_text", "")),
            vector(chunk),
        )
        for chunk in source.get("chunks", ())
    )
    texts = {field: source.get(field, "") for field in ("document_id", "key", "sequence", "recipe", "metadata")}
    numbers = {"revision": source.get("revision", 0), "live": source.get("live", False)}
    return HeldDocument(name=name, table=source.get("table_name", ""), **texts, **numbers, chunks=tuple(chunks))

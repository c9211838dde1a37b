"""The audit of a store in OpenSearch, read page by page: OpenSearch cannot compute SHA-256."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from schemas.documents import HAS_VECTOR, ActualDocument
from sinks.digests import actual_document, vector_hash
from sinks.opensearch.client import OpenSearchClient
from sinks.opensearch.schema import Names, covered

_ROW = ("document_id", "table_name", "key", "sequence", "revision", "live", "recipe", "metadata")
_CHUNK = ("chunks.chunk_id", "chunks.chunk_index", "chunks.content_hash", "chunks.chunk_text")
_VECTOR = "chunks.embedding"
_WITH_VECTORS_AT_ONCE = 100
"""Documents of a page: a vector of 1,024 dimensions takes 12.7 kB as JSON."""


def actual_documents(
    client: OpenSearchClient, names: Names, truncations: Mapping[str, str], bucket: str = "", *, vectors: bool
) -> Iterator[ActualDocument]:
    """Searchable documents whose ids begin with `bucket`, in order; vectors are fetched only if `vectors`."""
    within: dict[str, Any] = {"prefix": {"document_id": bucket}} if bucket else {"match_all": {}}
    query = {"bool": {"filter": [within], "must_not": covered(truncations)}}
    without_vector = frozenset[str]() if vectors else _without_vector(client, names, query)
    fields = (*_ROW, *_CHUNK, _VECTOR) if vectors else (*_ROW, *_CHUNK)
    size = _WITH_VECTORS_AT_ONCE if vectors else None
    for page in client.pages(names.documents, query, ("document_id",), fields, size=size):
        for hit in page:
            yield _document(hit, without_vector, vectors=vectors)


def _without_vector(client: OpenSearchClient, names: Names, query: Mapping[str, Any]) -> frozenset[str]:
    """Names of documents with a chunk that has no vector."""
    lacking = {
        "bool": {"filter": [{"exists": {"field": "chunks.chunk_id"}}], "must_not": [{"exists": {"field": _VECTOR}}]}
    }
    both = {"bool": {"filter": [query, {"nested": {"path": "chunks", "query": lacking}}]}}
    pages = client.pages(names.documents, both, ("document_id",), ())
    return frozenset(hit["_id"] for page in pages for hit in page)


def _document(hit: Mapping[str, Any], without_vector: Collection[str], *, vectors: bool) -> ActualDocument:
    source = hit["_source"]
    presence = "" if hit["_id"] in without_vector else HAS_VECTOR

    def vector(chunk: Mapping[str, Any]) -> str:
        if vectors:
            return vector_hash(np.asarray(chunk["embedding"], np.float32)) if chunk.get("embedding") else ""
        return presence

    return actual_document(hit["_id"], {**source, "table": source.get("table_name", "")}, vector)

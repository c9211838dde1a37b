"""The collections of a store in DocumentDB: their names, their indexes, and the filters of readers. Pure.

A document of a table is one document of DocumentDB, with its chunks but not their vectors: one write replaces both, so readers
never see chunks of two versions. Vectors are documents of their own, one a content hash, as a vector index requires; a search
finds vectors, then the documents that name them. Names carry the index version's number, so another model is filled beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sinks.documentdb.config import DocumentDBConfig
from sinks.versions import FIRST

LAYOUT = "1"
MOST_DIMENSIONS = 2000
"""Dimensions of a vector that DocumentDB can index (AWS, "Vector search for Amazon DocumentDB")."""


VECTOR_INDEX = "embedding"
"""The name of the vector index."""

MOST_COMPARED = 10_000
"""Chunks compared exactly with a question: in a load, or where the nearest ones are of too few documents that pass a filter."""


@dataclass(frozen=True)
class Names:
    """Names of one store's collections."""

    collection: str
    index_version: int = FIRST

    @property
    def documents(self) -> str:
        """Document rows with their chunks."""
        return f"{self.collection}_documents_g{self.index_version}"

    @property
    def vectors(self) -> str:
        """Vectors by content hash."""
        return f"{self.collection}_vectors_g{self.index_version}"

    @property
    def meta(self) -> str:
        """The facts that index versions share."""
        return f"{self.collection}_meta"


def indexes(config: DocumentDBConfig, names: Names, dimensions: int) -> dict[str, list[dict[str, Any]]]:
    """The indexes of each collection of an index version, as `createIndexes` takes them, by the collection's name."""
    fields = ("chunks.content_hash", "chunks.chunk_id", "chunks.words", "metadata_terms")
    vector = {
        "type": "hnsw", "dimensions": dimensions, "similarity": "cosine", "m": config.m,
        "efConstruction": config.ef_construction,
    }  # fmt: skip
    return {
        names.documents: [
            *({"name": field, "key": {field: 1}} for field in fields),
            {"name": "table", "key": {"table": 1, "sequence": 1}},
        ],
        names.vectors: [
            {"name": VECTOR_INDEX, "key": {"embedding": "vector"}, "vectorOptions": vector},
            {"name": "kept_at", "key": {"kept_at": 1}},
        ],
    }


def visible(truncations: Mapping[str, str], conditions: Mapping[str, Any]) -> dict[str, Any]:
    """A filter for documents that readers may see: live, and newer than the newest TRUNCATE of their table."""
    return {"live": True, **newer(truncations), **conditions}


def newer(truncations: Mapping[str, str]) -> dict[str, Any]:
    """A filter for rows that no TRUNCATE of their table covers."""
    covered = [{"table": table, "sequence": {"$lte": sequence}} for table, sequence in sorted(truncations.items())]
    return {"$nor": covered} if covered else {}

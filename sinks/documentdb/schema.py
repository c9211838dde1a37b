"""The collections of a store in DocumentDB: their names, their indexes, and what a reader may see. Pure.

A document of a table is one document of DocumentDB, and holds its chunks without their vectors: one write replaces both,
and no reader sees them apart. Vectors stand beside by content, one document each, as a vector index wants them; a search
finds vectors, then the documents that name them. Names carry an index version, so that another model can be filled beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sinks.versions import FIRST

if TYPE_CHECKING:
    from sinks.documentdb.config import DocumentDBConfig

LAYOUT = "1"
MOST_DIMENSIONS = 2000
"""Of a vector that DocumentDB indexes (AWS, "Vector search for Amazon DocumentDB")."""


@dataclass(frozen=True)
class Names:
    """Names of one store's collections."""

    collection: str
    index_version: int = FIRST

    @property
    def documents(self) -> str:
        """Heads with their chunks."""
        return f"{self.collection}_documents_g{self.index_version}"

    @property
    def vectors(self) -> str:
        """Vectors by content hash."""
        return f"{self.collection}_vectors_g{self.index_version}"

    @property
    def meta(self) -> str:
        """What index versions share: the model, the marks of truncations, the progress."""
        return f"{self.collection}_meta"


def indexes(config: DocumentDBConfig, names: Names, dimensions: int) -> dict[str, list[dict[str, Any]]]:
    """What each collection of an index version is searched by, by the collection's name, as `createIndexes` takes it."""
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
            {"name": "embedding", "key": {"embedding": "vector"}, "vectorOptions": vector},
            {"name": "kept_at", "key": {"kept_at": 1}},
        ],
    }


def visible(truncations: Mapping[str, str], conditions: Mapping[str, Any]) -> dict[str, Any]:
    """A filter for what a reader may see: live, and newer than what a TRUNCATE of its table covers."""
    return {"live": True, **newer(truncations), **conditions}


def newer(truncations: Mapping[str, str]) -> dict[str, Any]:
    """A filter for what no TRUNCATE of its table covers."""
    covered = [{"table": table, "sequence": {"$lte": sequence}} for table, sequence in sorted(truncations.items())]
    return {"$nor": covered} if covered else {}

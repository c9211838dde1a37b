"""The one place that tells which index reads which store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sinks.documentdb_config import DocumentDBConfig
from sinks.generations import FIRST
from sinks.opensearch_config import OpenSearchConfig

if TYPE_CHECKING:
    from retrieval.protocol import Index
    from sinks import SinkConfig


def open_index(config: SinkConfig, fingerprint: str, generation: int = FIRST) -> Index:
    """The index of one generation of a store, filled by that model; nothing is opened yet."""
    if isinstance(config, OpenSearchConfig):
        from retrieval.opensearch import OpenSearchIndex

        return OpenSearchIndex(config, fingerprint, generation)
    if isinstance(config, DocumentDBConfig):
        from retrieval.documentdb import DocumentDBIndex

        return DocumentDBIndex(config, fingerprint, generation)
    from retrieval.pgvector import PgvectorIndex

    return PgvectorIndex(config, fingerprint, generation)

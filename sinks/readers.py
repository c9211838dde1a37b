"""The one place that tells which index reads which store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sinks.documentdb.config import DocumentDBConfig
from sinks.opensearch.config import OpenSearchConfig
from sinks.versions import FIRST

if TYPE_CHECKING:
    from sinks import SinkConfig
    from sinks.search import Index


def open_index(config: SinkConfig, fingerprint: str, generation: int = FIRST) -> Index:
    """The index of one generation of a store, filled by that model; nothing is opened yet."""
    if isinstance(config, OpenSearchConfig):
        from sinks.opensearch.reader import OpenSearchIndex

        return OpenSearchIndex(config, fingerprint, generation)
    if isinstance(config, DocumentDBConfig):
        from sinks.documentdb.reader import DocumentDBIndex

        return DocumentDBIndex(config, fingerprint, generation)
    from sinks.pgvector.reader import PgvectorIndex

    return PgvectorIndex(config, fingerprint, generation)

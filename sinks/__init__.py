"""Vector stores: a folder each, one protocol, one contract suite.

Reading a configuration imports no client: `open_sink` and `open_index` do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, assert_never

from pydantic import Field

from sinks.documentdb.config import DocumentDBConfig
from sinks.opensearch.config import OpenSearchConfig
from sinks.pgvector.config import PgvectorConfig
from sinks.versions import FIRST

if TYPE_CHECKING:
    from sinks.protocol import Sink
    from sinks.search import Index

type SinkConfig = Annotated[DocumentDBConfig | OpenSearchConfig | PgvectorConfig, Field(discriminator="type")]
"""The union of all stores' configurations, told apart by `type`."""


def open_sink(config: SinkConfig, fingerprint: str, dimensions: int) -> Sink:
    """The sink a configuration describes; nothing is connected yet."""
    match config:
        case PgvectorConfig():
            from sinks.pgvector.writer import PgvectorSink

            return PgvectorSink(config, fingerprint, dimensions)
        case OpenSearchConfig():
            from sinks.opensearch.writer import OpenSearchSink

            return OpenSearchSink(config, fingerprint, dimensions)
        case DocumentDBConfig():
            from sinks.documentdb.writer import DocumentDBSink

            return DocumentDBSink(config, fingerprint, dimensions)
        case _:
            assert_never(config)


def open_index(config: SinkConfig, fingerprint: str, index_version: int = FIRST) -> Index:
    """The index of one index version of a store, filled by that model; nothing is connected yet."""
    match config:
        case PgvectorConfig():
            from sinks.pgvector.reader import PgvectorIndex

            return PgvectorIndex(config, fingerprint, index_version)
        case OpenSearchConfig():
            from sinks.opensearch.reader import OpenSearchIndex

            return OpenSearchIndex(config, fingerprint, index_version)
        case DocumentDBConfig():
            from sinks.documentdb.reader import DocumentDBIndex

            return DocumentDBIndex(config, fingerprint, index_version)
        case _:
            assert_never(config)

"""Vector stores: one module each, one protocol, one contract suite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from sinks.documentdb.config import DocumentDBConfig
from sinks.opensearch.config import OpenSearchConfig
from sinks.pgvector.config import PgvectorConfig
from sinks.pgvector.writer import PgvectorSink

if TYPE_CHECKING:
    from sinks.protocol import Sink

type SinkConfig = Annotated[DocumentDBConfig | OpenSearchConfig | PgvectorConfig, Field(discriminator="type")]
"""The union of all stores' configurations, told apart by `type`."""


def open_sink(config: SinkConfig, fingerprint: str, dimensions: int) -> Sink:
    """The sink a configuration describes; nothing is opened yet."""
    match config:
        case PgvectorConfig():
            return PgvectorSink(config, fingerprint, dimensions)
        case OpenSearchConfig():
            from sinks.opensearch.writer import OpenSearchSink

            return OpenSearchSink(config, fingerprint, dimensions)
        case DocumentDBConfig():
            from sinks.documentdb.writer import DocumentDBSink

            return DocumentDBSink(config, fingerprint, dimensions)

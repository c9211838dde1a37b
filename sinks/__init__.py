"""Vector stores: one module each, one protocol, one contract suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sinks.pgvector import PgvectorConfig, PgvectorSink

if TYPE_CHECKING:
    from sinks.protocol import Sink

SinkConfig = PgvectorConfig
"""The union of all stores' configurations, told apart by `type`."""


def open_sink(config: SinkConfig, fingerprint: str, dimensions: int) -> Sink:
    """The sink a configuration describes; nothing is opened yet."""
    return PgvectorSink(config, fingerprint, dimensions)

"""A toy store, written to. Its client is a package that an installation may lack."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from sinks.pgvector.writer import PgvectorSink

if TYPE_CHECKING:
    from .config import ToyStoreConfig


class ToySink(PgvectorSink):
    """Every guarantee is PostgreSQL's."""

    def __init__(self, config: ToyStoreConfig, fingerprint: str, dimensions: int) -> None:
        """Open the store inside."""
        importlib.import_module("toyclient")
        super().__init__(config.inside, fingerprint, dimensions)

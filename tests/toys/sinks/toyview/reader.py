"""A store that another pipeline writes, searched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sinks.pgvector.reader import PgvectorIndex

if TYPE_CHECKING:
    from .config import ToyViewConfig


class ToyViewIndex(PgvectorIndex):
    """Every guarantee is PostgreSQL's."""

    def __init__(self, config: ToyViewConfig, fingerprint: str, index_version: int) -> None:
        """Open the index inside."""
        super().__init__(config.inside, fingerprint, index_version)

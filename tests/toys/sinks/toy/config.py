"""The configuration of a toy store: a PostgreSQL table under another name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import SecretStr

from schemas.durations import Duration
from schemas.transport import EncryptedPart
from sinks.identity import Place
from sinks.pgvector.config import PgvectorConfig


class ToyStoreConfig(EncryptedPart):
    """A toy store."""

    type: Literal["toy"]
    dsn: SecretStr
    toy_table: str
    name: str = "toy"
    deadline: Duration = 30.0

    def weaknesses(self) -> Iterator[str]:
        """Those of PostgreSQL."""
        return PgvectorConfig.weaknesses(self)  # type: ignore[arg-type]

    @property
    def inside(self) -> PgvectorConfig:
        """The store that does the work."""
        return PgvectorConfig(type="pgvector", dsn=self.dsn, table=self.toy_table, name=self.name)

    @property
    def place(self) -> Place:
        """Where it is."""
        return self.inside.place

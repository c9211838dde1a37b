"""The configuration of a toy reader: a store that another pipeline writes."""

from __future__ import annotations

from typing import Literal

from pydantic import SecretStr

from schemas.durations import Duration
from schemas.model import StrictModel
from sinks.identity import Place
from sinks.pgvector.config import PgvectorConfig


class ToyViewConfig(StrictModel):
    """A toy reader."""

    type: Literal["toyview"]
    toy_view: str
    """The table, and after a space the connection string of a server of this machine."""
    name: str = "toyview"
    deadline: Duration = 30.0

    @property
    def inside(self) -> PgvectorConfig:
        """The store that is read."""
        table, _, dsn = self.toy_view.partition(" ")
        return PgvectorConfig(type="pgvector", dsn=SecretStr(dsn), table=table, name=self.name)

    @property
    def place(self) -> Place:
        """Where it is."""
        return self.inside.place

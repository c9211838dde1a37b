"""The configuration of a store in PostgreSQL with pgvector; it needs no client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, SecretStr

from schemas.durations import Duration
from schemas.errors import ConfigurationError
from schemas.transport import EncryptedPart, postgres_settings, weak_postgres
from sinks.identity import Place
from sinks.pgvector import libpq


class PgvectorConfig(EncryptedPart):
    """A store in PostgreSQL with pgvector."""

    type: Literal["pgvector"]
    dsn: SecretStr
    """libpq connection string or URI."""
    table: str = Field(pattern=r"^[a-z_][a-z0-9_]{0,40}$")
    """The view readers use; the tables behind it start with this name."""
    name: str = "pgvector"
    """The store's name in commands and in `status`."""
    deadline: Duration = 30.0
    """How long a store that does not answer may hold up the others before they go on without it; alone, it is waited for."""
    language: str = Field(default="english", pattern=r"^[a-z_]+$")
    """The language of tables that name none: PostgreSQL's text search configuration for the lexical half of a search."""
    connect_timeout_seconds: int = Field(default=5, ge=1)
    index_memory_mb: int = Field(default=1024, ge=64)
    """The most memory, in MB of the server's, in which the vector index is built after a first load (`maintenance_work_mem`); a
    graph that does not fit is built several times slower. The server's own setting counts where it is larger."""

    def weaknesses(self) -> Iterator[str]:
        """Tell a connection string that turns encryption or verification down."""
        return weak_postgres("dsn", libpq.options_of(self.dsn.get_secret_value()), libpq.environment())

    @property
    def conninfo(self) -> str:
        """The connection string, with what it lacks to be encrypted and verified beyond this machine."""
        dsn = self.dsn.get_secret_value()
        if self.allow_plaintext:
            return dsn
        return libpq.with_options(dsn, postgres_settings(libpq.options_of(dsn), libpq.environment()) or {})

    def unverified(self) -> ConfigurationError:
        """Say that the server is not the one that the connection string names, or has no TLS."""
        return ConfigurationError(
            f"sink {self.name}: the server has no TLS, or its certificate is not of that name or of an authority that is known",
            condition="SERVER_UNVERIFIED",
            hint="name the host as the certificate does, and the authority's file by sslrootcert=FILE in the dsn; on a network "
            "that is trusted, `allow_plaintext: true` on this sink does without",
        )

    @property
    def place(self) -> Place:
        """Where the store is, for messages."""
        return Place(self.name, self.table, "table")

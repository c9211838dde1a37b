"""The configuration of a store in PostgreSQL with pgvector, and how its server is verified."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo
from pydantic import Field, SecretStr

from schemas.durations import Duration
from schemas.errors import ConfigurationError
from schemas.transport import EncryptedPart, postgres_settings, weak_postgres
from sinks.identity import Place

_UNVERIFIED = re.compile(r"certificate verify failed|server certificate for|does not support SSL|root certificate file")
"""libpq's words for a server that it does not take for the one that it was to reach."""


def is_unverified(error: psycopg.Error) -> bool:
    """Whether a connection failed because the server could not be verified, which waiting does not mend."""
    return _UNVERIFIED.search(str(error)) is not None


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
    """PostgreSQL's text search configuration for the lexical half of a search."""
    connect_timeout_seconds: int = Field(default=5, ge=1)

    def weaknesses(self) -> Iterator[str]:
        """Tell a connection string that turns encryption or verification down."""
        return weak_postgres("dsn", *self._told())

    @property
    def conninfo(self) -> str:
        """The connection string, with what it lacks to be encrypted and verified beyond this machine."""
        lacking = None if self.allow_plaintext else postgres_settings(*self._told())
        dsn = self.dsn.get_secret_value()
        return make_conninfo(dsn, **lacking) if lacking else dsn

    def _told(self) -> tuple[dict[str, str], dict[str, str]]:
        """What the connection string says, and what libpq takes from its environment."""
        try:
            told = conninfo_to_dict(self.dsn.get_secret_value())
        except psycopg.ProgrammingError:  # connecting says so, without quoting it
            return {}, {}
        defaults = {each.keyword.decode(): each.val.decode() for each in Conninfo.get_defaults() if each.val}
        return {name: str(value) for name, value in told.items()}, defaults

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
        """Where the store is, for what is said of it."""
        return Place(self.name, self.table, "table")

"""The configuration of a store in DocumentDB; it needs no client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from schemas.durations import Duration
from schemas.transport import EncryptedPart, weak_mongo
from sinks.identity import Place

Language = Literal[
    "simple", "english", "arabic", "armenian", "basque", "catalan", "czech", "danish", "dutch", "esperanto", "estonian",
    "finnish", "french", "german", "greek", "hindi", "hungarian", "indonesian", "irish", "italian", "lithuanian", "nepali",
    "norwegian", "persian", "polish", "portuguese", "romanian", "russian", "serbian", "sesotho", "spanish", "swedish", "tamil",
    "turkish", "yiddish",
]  # fmt: skip
"""The languages that Snowball has a stemmer for (https://snowballstem.org/algorithms/)."""


class DocumentDBConfig(EncryptedPart):
    """A store in Amazon DocumentDB, an instance-based cluster of version 5.0 or later."""

    type: Literal["documentdb"]
    uri: SecretStr
    """`mongodb://USER:PASSWORD@HOST:27017/?replicaSet=rs0`; writes are never retried by the driver, whatever it says."""
    database: str = Field(pattern=r"^[A-Za-z0-9_-]{1,38}$")
    collection: str = Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")
    """The names of the store's collections start with it."""
    name: str = "documentdb"
    """The store's name in commands and in `status`."""
    deadline: Duration = 30.0
    """How long a store that does not answer may hold up the others before they go on without it; alone, it is waited for."""
    tls_ca_file: str | None = None
    """File of the certificate authorities to trust (AWS's global-bundle.pem), on every worker; with it, TLS is on."""
    language: Language = "english"
    """The language of tables that name none, by which the lexical half of a search stems words; `simple` takes them as they
    are."""
    m: int = Field(default=16, ge=2, le=100)
    """Neighbours of a vector in the HNSW graph."""
    ef_construction: int = Field(default=64, ge=4, le=1000)
    """Candidates that are looked at when a vector comes into the graph."""
    timeout_seconds: float = Field(default=30.0, gt=0)
    """Of one request."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.uri.get_secret_value().startswith("mongodb://"):
            raise ValueError("uri starts with mongodb://")
        if self.ef_construction < 2 * self.m:
            raise ValueError("ef_construction is at least twice m")
        return self

    def weaknesses(self) -> Iterator[str]:
        """Tell a cluster of another machine without TLS, or with a TLS that looks at nothing."""
        return weak_mongo("uri", self.uri.get_secret_value(), tls=self.tls_ca_file is not None)

    @property
    def place(self) -> Place:
        """Where the store is, for messages."""
        return Place(self.name, self.collection, "collection")

"""The configuration of a memory in DocumentDB; it needs no client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from memory.config import MemorySettings
from schemas.transport import EncryptedPart, weak_mongo


class DocumentDBMemoryConfig(MemorySettings, EncryptedPart):
    """Conversations and profiles in one collection of Amazon DocumentDB."""

    type: Literal["documentdb"]
    uri: SecretStr
    """`mongodb://USER:PASSWORD@HOST:27017/?replicaSet=rs0`; writes are never retried by the driver, whatever it says."""
    database: str = Field(pattern=r"^[A-Za-z0-9_-]{1,38}$")
    collection: str = Field(default="ragstream_memory", pattern=r"^[a-z][a-z0-9_]{0,40}$")
    """The collection; `ragstream check` creates its TTL index."""
    tls_ca_file: str | None = None
    """File of the certificate authorities to trust (AWS's global-bundle.pem); with it, TLS is on."""

    @model_validator(mode="after")
    def _is_mongodb(self) -> Self:
        if not self.uri.get_secret_value().startswith("mongodb://"):
            raise ValueError("uri starts with mongodb://")
        return self

    def weaknesses(self) -> Iterator[str]:
        """Tell a cluster of another machine without TLS, or with a TLS that looks at nothing."""
        return weak_mongo("uri", self.uri.get_secret_value(), tls=self.tls_ca_file is not None)

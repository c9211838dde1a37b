"""The configuration of a memory in DynamoDB; it needs no client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, SecretStr

from memory.config import MemorySettings
from schemas.transport import EncryptedPart, weak_url


class DynamoDBMemoryConfig(MemorySettings, EncryptedPart):
    """Conversations and profiles in one table of Amazon DynamoDB."""

    type: Literal["dynamodb"]
    table: str = Field(pattern=r"^[A-Za-z0-9_.-]{3,255}$")
    """The table; `ragstream check` creates it, on demand and with its TTL attribute, where it has the right to."""
    region: str = "us-east-1"
    endpoint_url: str | None = None
    """Another address than AWS's own: an interface endpoint, or a local endpoint of the same wire format."""
    access_key: str | None = None
    """Only where the usual AWS credential chain does not apply."""
    secret_key: SecretStr | None = None

    def weaknesses(self) -> Iterator[str]:
        """Tell an http:// endpoint of another machine."""
        return weak_url("endpoint_url", self.endpoint_url)

"""The configuration of a store in OpenSearch; it needs no client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from schemas.durations import Duration
from schemas.model import StrictModel
from schemas.transport import EncryptedPart, weak_url
from sinks.identity import Place


class AwsSigning(StrictModel):
    """Requests signed with the credentials that the job runs with."""

    service: Literal["es", "aoss"]
    """`es` for a domain of OpenSearch Service, `aoss` for a collection of OpenSearch Serverless."""
    region: str = Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")


class OpenSearchConfig(EncryptedPart):
    """A store in OpenSearch: a domain, a cluster of one's own, or a Serverless collection of the SEARCH type."""

    type: Literal["opensearch"]
    url: str = Field(pattern=r"^https?://[^@/\s]+$")
    """Scheme, host and port."""
    index: str = Field(pattern=r"^[a-z][a-z0-9_]{0,60}$")
    """The alias readers use; the indexes behind it start with this name."""
    name: str = "opensearch"
    """The store's name in commands and in `status`."""
    deadline: Duration = 30.0
    """How long a store that does not answer may hold up the others before they go on without it; alone, it is waited for."""
    user: str | None = None
    password: SecretStr | None = None
    signing: AwsSigning | None = None
    """Instead of user and password, on AWS."""
    ca_bundle: str | None = None
    """File of the certificate authorities to trust, where the system's do not do."""
    language: str = Field(default="english", pattern=r"^[a-z_]+$")
    """The language of tables that name none: OpenSearch's analyzer for the lexical half of a search."""
    shards: int = Field(default=1, ge=1)
    replicas: int = Field(default=1, ge=0)
    guard: Literal["auto", "script", "seq_no"] = "auto"
    """How a write is guarded: by a script in the store, or, where scripts are not to be had, by its sequence numbers."""
    timeout_seconds: float = Field(default=30.0, gt=0)
    """Of one request."""

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password go together")
        if self.user is not None and self.signing is not None:
            raise ValueError("either user and password, or signing")
        return self

    def weaknesses(self) -> Iterator[str]:
        """Tell an http:// address of another machine; https verifies the server."""
        return weak_url("url", self.url)

    @property
    def serverless(self) -> bool:
        """Whether it is OpenSearch Serverless, which has no scripts, no refresh and no delete by query."""
        return self.signing is not None and self.signing.service == "aoss"

    @property
    def place(self) -> Place:
        """Where the store is, for messages."""
        return Place(self.name, self.index, "index")

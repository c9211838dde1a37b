"""The configuration of a connection to an AWS service; it needs no client."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field, SecretStr

from schemas.transport import EncryptedPart, weak_url


class AwsAccess(EncryptedPart):
    """Where a service answers, and who asks."""

    region: str = "us-east-1"
    endpoint_url: str | None = None
    """Another address than AWS's own: an interface endpoint, or a local endpoint of the same wire format."""
    access_key: str | None = None
    """Only where the usual AWS credential chain does not apply."""
    secret_key: SecretStr | None = None

    def weaknesses(self) -> Iterator[str]:
        """Tell an http:// endpoint of another machine."""
        return weak_url("endpoint_url", self.endpoint_url)


class AwsConnection(AwsAccess):
    """Access to a service that runs models, and how long to wait for it."""

    connect_timeout_seconds: float = Field(default=5, gt=0)
    read_timeout_seconds: float = Field(default=60, gt=0)

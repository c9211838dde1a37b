"""How a part reaches a service of AWS: the keys that every such section has. It needs no client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from pydantic import SecretStr, model_validator

from schemas.transport import EncryptedPart, weak_url


class AwsAccess(EncryptedPart):
    """Where a service answers, and who asks."""

    region: str | None = None
    """The environment's own where it is left out."""
    endpoint_url: str | None = None
    """Another address than AWS's own: an interface endpoint, or a local endpoint of the same wire format."""
    access_key: str | None = None
    """Only where the usual AWS credential chain does not apply."""
    secret_key: SecretStr | None = None

    @model_validator(mode="after")
    def _keys_go_together(self) -> Self:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key go together")
        return self

    def client_options(self) -> dict[str, Any]:
        """What a client of boto3 takes of it; None for boto3's own chain."""
        return {
            "region_name": self.region,
            "endpoint_url": self.endpoint_url,
            "aws_access_key_id": self.access_key,
            "aws_secret_access_key": self.secret_key.get_secret_value() if self.secret_key else None,
        }

    def weaknesses(self) -> Iterator[str]:
        """Tell an http:// endpoint of another machine."""
        return weak_url("endpoint_url", self.endpoint_url)

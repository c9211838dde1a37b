"""The configuration of callers that a load balancer signed in; it imports no client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.durations import Duration
from schemas.transport import EncryptedPart, weak_url


class AlbConfig(EncryptedPart):
    """An Application Load Balancer signs people in and sends their claims in `x-amzn-oidc-data`."""

    type: Literal["alb"]
    signer: Annotated[tuple[str, ...], Field(min_length=1)]
    """ARNs of the load balancers that are trusted: everybody's have keys at the same address."""
    client_id: str | None = None
    """The client of the listener's rule, if more than one is in use."""
    issuer: str | None = None
    """The issuer of the listener's rule, if more than one is in use."""
    region: str | None = Field(default=None, pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")
    """The load balancer's Region, from which `keys_url` follows."""
    keys_url: str | None = None
    """Where public keys are, each under its id; default: https://public-keys.auth.elb.REGION.amazonaws.com."""
    leeway: Annotated[Duration, Field(le=300)] = 30.0
    """How far the clocks of load balancer and service may differ."""
    claims: dict[str, str] = Field(default_factory=dict)
    """The claims of `access` by name, and what each is called among the user's claims. `sub` is always taken."""

    @model_validator(mode="after")
    def _has_keys(self) -> Self:
        if self.region is None and self.keys_url is None:
            raise ValueError("name the `region` of the load balancer, or the `keys_url`")
        return self

    @property
    def address(self) -> str:
        """The address that public keys are under ("Authenticate users using an Application Load Balancer")."""
        return (self.keys_url or f"https://public-keys.auth.elb.{self.region}.amazonaws.com").rstrip("/")

    def weaknesses(self) -> Iterator[str]:
        """The weakness of keys that are fetched without TLS: whoever is between could put in their own."""
        return weak_url("keys_url", self.keys_url)

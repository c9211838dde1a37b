"""The configuration of JSON Web Tokens; it imports no client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from schemas.durations import Duration
from schemas.transport import EncryptedPart, weak_url

type Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519",
]  # fmt: skip
"""Asymmetric ones alone: with a shared secret, or none, whoever verifies could sign (RFC 8725, 3.1)."""


class JwtConfig(EncryptedPart):
    """Callers send `Authorization: Bearer TOKEN`, a JSON Web Token of an OpenID provider."""

    type: Literal["jwt"]
    issuer: str = Field(min_length=1)
    """The claim `iss`, exactly. Cognito: https://cognito-idp.REGION.amazonaws.com/POOL."""
    audience: Annotated[tuple[str, ...], Field(min_length=1)]
    """The claim `aud` is or has one of these. Cognito's access tokens have none: there it is `client_id`, the app client."""
    jwks_url: str | None = None
    """Where the issuer's public keys are; default: ISSUER/.well-known/jwks.json, as Cognito has it."""
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("RS256", "ES256")
    """The algorithms that a token may be signed by."""
    token_use: Literal["access", "id"] | None = None
    """Of Cognito: take access tokens alone, or id tokens alone. An API takes access tokens; groups are in both."""
    scope: str | None = None
    """A scope that the claim `scope` must have; a token without it is refused as forbidden."""
    leeway: Annotated[Duration, Field(le=300)] = 30.0
    """How far the clocks of issuer and service may differ."""
    claims: dict[str, str] = Field(default_factory=dict)
    """The claims of `access` by name, and what each is called in a token: `tenant: custom:tenant`. `sub` is always taken."""

    @property
    def keys_url(self) -> str:
        """The address of the key set."""
        return self.jwks_url or f"{self.issuer.rstrip('/')}/.well-known/jwks.json"

    def weaknesses(self) -> Iterator[str]:
        """The weakness of keys that are fetched without TLS: whoever is between could put in their own."""
        return weak_url("jwks_url" if self.jwks_url else "issuer", self.keys_url)

"""API keys: long random texts of which the configuration keeps SHA-256 digests."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.caller import USER, Caller
from schemas.model import StrictModel
from service.callers.claims import Claims
from service.callers.protocol import Identity, SignInError, bearer


class ApiKey(StrictModel):
    """One key."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Who has it; the user (`sub`) of its requests, unless `claims` say another."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """The SHA-256 digest of the key, in small hexadecimal digits. It is not salted: a key is random, of 128 bits at least."""
    claims: Claims = Field(default_factory=dict)
    """The claims of its requests, for the rules of `access`."""


class ApiKeysConfig(StrictModel):
    """Callers send `Authorization: Bearer KEY`."""

    type: Literal["api_keys"]
    keys: Annotated[tuple[ApiKey, ...], Field(min_length=1)]
    """The keys; a key is changed by adding the next one, and removing the old one once nobody sends it."""

    @model_validator(mode="after")
    def _keys_differ(self) -> Self:
        for what in ("name", "sha256"):
            if len({getattr(key, what) for key in self.keys}) < len(self.keys):
                raise ValueError(f"two keys have the same {what}")
        return self


class ApiKeys:
    """Compares digests in constant time, with every key of the configuration."""

    def __init__(self, config: ApiKeysConfig) -> None:
        self._known = [
            (bytes.fromhex(key.sha256), Identity(Caller({USER: key.name, **key.claims}), "key")) for key in config.keys
        ]

    async def identify(self, headers: Mapping[str, str]) -> Identity:
        """The key's caller."""
        digest = hashlib.sha256(bearer(headers).encode()).digest()
        identities = [identity for known, identity in self._known if hmac.compare_digest(known, digest)]
        if not identities:
            raise SignInError(
                "the key is not known", condition="KEY_UNKNOWN", hint="ask whoever runs this service for a key"
            )
        return identities[0]

    def check(self) -> None:
        """Nothing is needed."""

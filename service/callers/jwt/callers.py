"""Verifies JSON Web Tokens with the key set of their issuer (RFC 7519, 7517, 8725)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import Key, OctKey, import_key

from schemas.errors import ConfigurationError
from service.callers import tokens
from service.callers.claims import caller_of
from service.callers.fetching import fetched
from service.callers.jwt.config import JwtConfig
from service.callers.key_cache import KeyCache
from service.callers.protocol import ForbiddenError, Identity, bearer


class JwtCallers:
    """Callers with tokens of one issuer. An unknown key id fetches the key set again, at most every ten seconds."""

    def __init__(self, config: JwtConfig) -> None:
        self._config = config
        self._algorithms = tokens.Algorithms(config.algorithms)
        self._keys = KeyCache(self._key_set)

    async def identify(self, headers: Mapping[str, str]) -> Identity:
        """The token's caller."""
        signature = tokens.parsed(bearer(headers), self._algorithms)
        key = await self._keys.key(tokens.key_id_of(signature))
        if key is None:
            raise tokens.refused("the token is signed by a key that its issuer does not have")
        claims = tokens.claims_of(signature, key, self._algorithms)
        expires_at = tokens.require_valid(claims, self._config.issuer, self._config.leeway)
        self._require_for_us(claims)
        return Identity(caller_of(claims, self._config.claims), "jwt", expires_at + self._config.leeway)

    def check(self) -> None:
        """Fetch the key set."""
        self._key_set()

    def _require_for_us(self, claims: Mapping[str, Any]) -> None:
        use = claims.get("token_use")  # of Cognito ("Verifying JSON web tokens")
        named = claims.get("aud", claims.get("client_id") if use == "access" else None)
        audiences = named if isinstance(named, list) else [named]
        if not any(isinstance(audience, str) and audience in self._config.audience for audience in audiences):
            raise tokens.refused("the token is for another audience")
        if self._config.token_use not in {None, use}:
            raise tokens.refused(f"the token is no {self._config.token_use} token")
        scopes = claims.get("scope")
        if self._config.scope is not None and (
            not isinstance(scopes, str) or self._config.scope not in scopes.split(" ")
        ):
            raise ForbiddenError(
                "the token lacks the scope of this service",
                condition="SCOPE_MISSING",
                hint=f"ask the provider for the scope {self._config.scope}",
            )

    def _key_set(self) -> dict[str, Key]:
        """The issuer's public keys by id. A key that is not understood, or is symmetric, is none (RFC 7517, 5)."""
        url = self._config.keys_url
        try:
            members = json.loads(fetched(url))["keys"]
            keys = [key for member in members if (key := _public_key(member)) is not None]
        except (ValueError, TypeError, KeyError, RecursionError):
            keys = []
        if not keys:
            raise ConfigurationError(
                f"no public keys are at {url}",
                condition="NO_KEYS",
                hint="`jwks_url` is the address of a JSON Web Key Set; an issuer's metadata calls it `jwks_uri`",
            )
        for key in keys:
            key.ensure_kid()
        return {str(key.kid): key for key in keys}


def _public_key(member: Any) -> Key | None:
    try:
        key = import_key(member)
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return None if isinstance(key, OctKey) or key.get("use") == "enc" else key

"""Verifies `x-amzn-oidc-data`, in which an Application Load Balancer sends the claims of whom it signed in.

It is a JSON Web Token by ES256 but for two things ("Authenticate users using an Application Load Balancer", "User claims
encoding and signature verification"): its parts are padded, and the header says who signed (`signer`, `client`, `iss`, `exp`).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from schemas.errors import UnavailableError
from service.callers import tokens
from service.callers.alb.config import AlbConfig
from service.callers.claims import caller_of
from service.callers.fetching import NotThereError, fetched
from service.callers.protocol import Identity, SignInError

HEADER = "x-amzn-oidc-data"
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_MOST_KEYS = 32
"""Keys that are kept. A load balancer has few; whoever sends made-up ids makes us forget one, and fetch it again."""
FETCH_SECONDS = 1.0
"""The least time between two fetches, however many tokens name unknown keys."""


class AlbCallers:
    """Callers that one of the configured load balancers signed in."""

    def __init__(self, config: AlbConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._algorithms = tokens.Algorithms(["ES256"])
        self._keys: OrderedDict[str, ECKey] = OrderedDict()
        self._fetched_at: float | None = None
        self._lock = asyncio.Lock()

    async def identify(self, headers: Mapping[str, str]) -> Identity:
        """The caller whose claims the load balancer sent."""
        token = headers.get(HEADER)
        if not token or not token.isascii():
            raise SignInError(
                "nobody is signed in",
                condition="SIGN_IN_NEEDED",
                hint=f"come through the load balancer, which sends {HEADER}",
            )
        signature = tokens.parsed(token, self._algorithms)
        header = signature.headers()
        if header.get("signer") not in self._config.signer:
            raise tokens.refused("the token is of another load balancer")
        if self._config.client_id not in {None, header.get("client")}:
            raise tokens.refused("the token is of another client")
        key = await self._key(tokens.key_id_of(signature) or "")
        claims = tokens.claims_of(signature, key, self._algorithms)
        signed: dict[str, Any] = {name: header[name] for name in ("iss", "exp") if name in header}
        expires_at = tokens.require_valid(signed, self._config.issuer, self._config.leeway)
        return Identity(caller_of(claims, self._config.claims), "jwt", expires_at + self._config.leeway)

    def check(self) -> None:
        """Reach the address of the keys; which ids it has is known from tokens alone."""
        try:
            fetched(self._config.address + "/")
        except NotThereError:
            return

    async def _key(self, key_id: str) -> ECKey:
        """The public key of that id, which may be fetched.

        Raises:
            SignInError: there is none.
            UnavailableError: the address does not answer, or was asked a moment ago.
        """
        if not _KEY_ID.fullmatch(key_id):
            raise tokens.refused("the token names no key")
        if key_id not in self._keys:  # tokens with a known key do not wait for a fetch
            async with self._lock:
                if key_id not in self._keys:
                    await self._fetch(key_id)
        self._keys.move_to_end(key_id)
        return self._keys[key_id]

    async def _fetch(self, key_id: str) -> None:
        now = self._clock()
        if self._fetched_at is not None and now - self._fetched_at < FETCH_SECONDS:
            raise UnavailableError(
                "a public key was fetched a moment ago",
                condition="KEYS_UNAVAILABLE",
                hint="send the request again",
            )
        self._fetched_at = now
        self._keys[key_id] = await asyncio.to_thread(self._fetched, key_id)
        if len(self._keys) > _MOST_KEYS:
            self._keys.popitem(last=False)

    def _fetched(self, key_id: str) -> ECKey:
        try:
            return ECKey.import_key(fetched(f"{self._config.address}/{key_id}"))
        except (NotThereError, JoseError, ValueError, TypeError) as error:
            raise tokens.refused("the token is signed by a key that the load balancer does not have") from error

"""No sign-in: whoever reaches the service is one and the same caller. For this machine alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from schemas.caller import USER, Caller
from schemas.model import StrictModel
from service.callers.claims import Claims
from service.callers.protocol import Identity

LOCAL_USER = "local"


class NoSignInConfig(StrictModel):
    """No sign-in; refused unless the host is a loopback address."""

    type: Literal["none"] = "none"
    claims: Claims = Field(default_factory=lambda: Claims({USER: LOCAL_USER}))
    """The claims of everybody, for the rules of `access`; `sub` names the user, whose sessions they are."""


class NoSignIn:
    """Everybody has the claims of the configuration."""

    def __init__(self, config: NoSignInConfig) -> None:
        self._identity = Identity(Caller(config.claims), "none")

    async def identify(self, headers: Mapping[str, str]) -> Identity:
        """The one caller."""
        return self._identity

    def check(self) -> None:
        """Nothing is needed."""

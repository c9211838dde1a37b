"""Who sends a request: the `Callers` protocol, what it finds out, and how it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from schemas.caller import Caller
from schemas.errors import PipelineError

type SignIn = Literal["none", "key", "jwt"]


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller, and how it is known."""

    caller: Caller
    sign_in: SignIn
    expires_at: float | None = None
    """Seconds since the epoch until when the sign-in is good; None where it does not end."""


class SignInError(PipelineError):
    """Nobody is signed in, or the key or token is not good; the message never quotes it."""

    exit_status = 2


class ForbiddenError(PipelineError):
    """The caller is known, and may not do this."""

    exit_status = 2


class Callers(Protocol):
    """One way of signing in. Safe to use by several requests at once."""

    async def identify(self, headers: Mapping[str, str]) -> Identity:
        """Who sent these headers, whose names are in small letters.

        Raises:
            SignInError: nobody is signed in, or the key or token is not good.
            ForbiddenError: a token lacks the scope that this service asks for.
            UnavailableError: the keys that tokens are verified with cannot be fetched.
        """

    def check(self) -> None:
        """Fetch what verification needs; raise ConfigurationError or UnavailableError where that is not to be had."""


def bearer(headers: Mapping[str, str]) -> str:
    """The key or token of `Authorization: Bearer …` (RFC 6750, 2.1).

    Raises:
        SignInError: there is none.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or not token.isascii():
        raise SignInError(
            "nobody is signed in",
            condition="SIGN_IN_NEEDED",
            hint="send the header `Authorization: Bearer KEY-OR-TOKEN`",
        )
    return token

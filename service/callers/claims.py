"""Claims as a configuration writes them, and as a token has them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.caller import USER, Caller
from schemas.errors import ConfigurationError
from service.callers.protocol import SignInError

Claims = dict[str, str | int | bool | tuple[str | int | bool, ...]]
"""Claims of a caller, by name; `sub` is the user."""


def caller_of(token: Mapping[str, Any], names: Mapping[str, str]) -> Caller:
    """The caller of a verified token: its `sub`, and the claims that `names` maps from the token's names.

    Nothing else of a token becomes a claim: what changes from token to token, as `exp` and `jti` do, would part a user from
    what was said before. A claim that the token lacks is missing.

    Raises:
        SignInError: there is no `sub`, so the user is unknown; or a claim is an object.
    """
    wanted = {USER: USER, **names}
    claims = {name: token[source] for name, source in wanted.items() if token.get(source) is not None}
    subject = claims.get(USER)
    if not isinstance(subject, str) or not subject:
        raise SignInError(
            "the token names no user", condition="TOKEN_INVALID", hint="map a claim to `sub` in `serve.callers.claims`"
        )
    try:
        return Caller(claims)
    except ConfigurationError as error:
        raise SignInError(error.message, condition="TOKEN_INVALID", hint=error.hint) from None

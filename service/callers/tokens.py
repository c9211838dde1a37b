"""Signed tokens: their signature, issuer, times and audience. What is refused is never quoted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from joserfc import jws
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jwk import Key
from joserfc.jwt import JWTClaimsRegistry

from service.callers.protocol import SignInError

_MOST_HEADER_BYTES = 4096
"""A load balancer's header names its ARN, the client and the issuer: joserfc's own limit is 512."""


class Algorithms(jws.JWSRegistry):
    """The asymmetric algorithms that a configuration allows; extra members of a header are no fault (RFC 7515, 4.2)."""

    max_header_length = _MOST_HEADER_BYTES

    def __init__(self, allowed: Collection[str]) -> None:
        """`allowed` is not empty: joserfc would take its own recommendation, which includes HS256."""
        assert allowed  # noqa: S101 - of a configuration, which says at least one
        super().__init__(algorithms=list(allowed), strict_check_header=False)


def parsed(token: str, algorithms: Algorithms) -> jws.CompactSignature:
    """A token whose signature is yet to be verified. Its parts may be padded, as a load balancer's are.

    Raises:
        SignInError: it is none, or names an algorithm that is not allowed.
    """
    try:
        parts = token.encode("ascii").split(b".")
        signature = jws.extract_compact(b".".join(part.rstrip(b"=") for part in parts), registry=algorithms)
        signature.segments.update({"header": parts[0], "payload": parts[1]})  # what is signed, padding included
        algorithms.check_header(signature.headers())
        algorithms.get_alg(signature.headers()["alg"])
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise refused("the token is none, or is not signed by an algorithm that is allowed") from error
    return signature


def key_id_of(signature: jws.CompactSignature) -> str | None:
    """The id of the key that a token says it is signed with."""
    key_id = signature.headers().get("kid")
    return key_id if isinstance(key_id, str) else None


def claims_of(signature: jws.CompactSignature, key: Key, algorithms: Algorithms) -> dict[str, Any]:
    """The claims of a token whose signature is right.

    Raises:
        SignInError: it is not; or its claims are no object.
    """
    try:
        if not jws.validate_compact(signature, key, registry=algorithms):
            raise refused("the token's signature is wrong")
        claims = json.loads(signature.payload or b"")
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise refused("the token cannot be verified with the key that it names") from error
    if not isinstance(claims, dict):
        raise refused("the token has no claims")
    return claims


def require_valid(
    claims: Mapping[str, Any], issuer: str | None, leeway: float, clock: Callable[[], float] = time.time
) -> float:
    """Check issuer (None: any) and times of claims; returns when they expire, in seconds since the epoch.

    Raises:
        SignInError: the issuer is another one, or the claims are not good now.
    """
    expected = {} if issuer is None else {"iss": {"essential": True, "value": issuer}}
    rules = JWTClaimsRegistry(lambda: int(clock()), int(leeway), exp={"essential": True}, **expected)  # type: ignore[arg-type] # of strings
    try:
        rules.validate(dict(claims))
    except ExpiredTokenError as error:
        raise SignInError("the token has expired", condition="TOKEN_EXPIRED", hint="sign in again") from error
    except JoseError as error:
        raise refused("the token is of another issuer, or is not good at this time") from error
    return float(claims["exp"])


def refused(what: str) -> SignInError:
    """The error on a token that is not good."""
    return SignInError(what, condition="TOKEN_INVALID", hint="sign in again, at the provider that this service trusts")

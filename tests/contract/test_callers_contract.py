"""Every way of signing in: who is found out, and what is refused without being quoted."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from pydantic import TypeAdapter

from schemas.errors import PipelineError, UnavailableError
from service.callers import CallersConfig, open_callers
from service.callers.key_cache import REFETCH_SECONDS, REFRESH_SECONDS, KeyCache
from service.callers.protocol import Callers, ForbiddenError, Identity, SignInError
from tests.key_server import AUDIENCE, ISSUER, LOAD_BALANCER, Issuer, issuing, padded

KEY = "hF3kq-0f2c9b7d1e8a4655a0c4f1e2d3b6a798"


@dataclass
class Kind:
    """A way of signing in, with `ada` of tenant 7."""

    config: dict[str, Any]
    headers: Callable[[], dict[str, str]]
    sign_in: str
    header: str = "authorization"
    prefix: str = "Bearer "

    def open(self, **changes: Any) -> Callers:
        adapter: TypeAdapter[CallersConfig] = TypeAdapter(CallersConfig)
        return open_callers(adapter.validate_python(self.config | changes))


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing() as started:
        yield started


@pytest.fixture
def jwt_kind(issuer: Issuer) -> Kind:
    config = {
        "type": "jwt", "issuer": ISSUER, "audience": [AUDIENCE], "jwks_url": f"{issuer.url}/jwks.json",
        "claims": {"tenant": "custom:tenant"},
    }  # fmt: skip
    return Kind(config, lambda: {"authorization": f"Bearer {issuer.token({'custom:tenant': 7})}"}, "jwt")


@pytest.fixture
def alb_kind(issuer: Issuer) -> Kind:
    issuer.rotate("12345678-1234-1234-1234-123456789012", "EC")
    config = {
        "type": "alb", "signer": [LOAD_BALANCER], "client_id": AUDIENCE, "keys_url": f"{issuer.url}/keys",
        "claims": {"tenant": "custom:tenant"},
    }  # fmt: skip
    return Kind(
        config, lambda: {"x-amzn-oidc-data": issuer.load_balancer_token({"custom:tenant": 7})}, "jwt",
        "x-amzn-oidc-data", "",
    )  # fmt: skip


@pytest.fixture(params=["none", "api_keys", "jwt", "alb"])
def kind(request: pytest.FixtureRequest) -> Kind:
    claims = {"sub": "ada", "tenant": 7}
    match request.param:
        case "none":
            return Kind({"type": "none", "claims": claims}, dict, "none")
        case "api_keys":
            other = {"name": "other", "sha256": hashlib.sha256(b"other").hexdigest()}
            ours = {"name": "ours", "sha256": hashlib.sha256(KEY.encode()).hexdigest(), "claims": claims}
            return Kind({"type": "api_keys", "keys": [other, ours]}, lambda: {"authorization": f"bearer {KEY}"}, "key")
        case name:
            made: Kind = request.getfixturevalue(f"{name}_kind")
            return made


def identified(callers: Callers, headers: Mapping[str, str]) -> Identity:
    return asyncio.run(callers.identify(headers))


def refusal(callers: Callers, headers: Mapping[str, str], error: type[PipelineError] = SignInError) -> str:
    """The condition of a refusal, which quotes nothing of what was sent."""
    with pytest.raises(error) as raised:
        identified(callers, headers)
    sent = [part for value in headers.values() for part in value.replace(".", " ").split() if len(part) > 8]
    assert [part for part in sent if part in str(raised.value)] == []
    return raised.value.condition


def test_a_caller_is_known_by_user_and_claims(kind: Kind) -> None:
    callers = kind.open()
    callers.check()
    identity = identified(callers, kind.headers())
    assert (identity.caller.user, identity.caller.claims["tenant"], identity.sign_in) == ("ada", 7, kind.sign_in)
    assert set(identity.caller.claims) == {"sub", "tenant"}, "what changes from token to token is no claim"
    assert (identity.expires_at is None) == (kind.sign_in != "jwt")


@pytest.mark.parametrize("name", ["nothing", "empty", "words", "odd", "long", "points", "nested", "bytes"])
def test_whoever_does_not_sign_in_is_refused(kind: Kind, name: str) -> None:
    if kind.sign_in == "none":
        return
    nested = base64.urlsafe_b64encode(b"[" * 2900).rstrip(b"=").decode()
    sent = {
        "empty": "", "words": "let me in please", "odd": "geheim\xe9geheim", "long": "a" * 300_000, "points": "..........",
        "nested": f"{nested}.{nested}.{nested}", "bytes": ".".join([base64.urlsafe_b64encode(b"\xff\xfe" * 20).decode()] * 3),
    }  # fmt: skip
    headers = {} if name == "nothing" else {kind.header: kind.prefix + sent[name]}
    condition = refusal(kind.open(), headers)
    assert condition in {"SIGN_IN_NEEDED", "KEY_UNKNOWN", "TOKEN_INVALID"}
    assert (condition == "SIGN_IN_NEEDED") == (name in {"nothing", "empty", "odd"})


def test_a_key_without_a_user_is_its_own_user() -> None:
    keys = [{"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest()} for name in ("one", "two")]
    callers = Kind({"type": "api_keys", "keys": keys}, dict, "key").open()
    assert [identified(callers, {"authorization": f"Bearer {name}"}).caller.user for name in ("one", "two")] == [
        "one", "two",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("claims", "condition"),
    [
        ({"exp": int(time.time()) - 31}, "TOKEN_EXPIRED"),
        ({"exp": None}, "TOKEN_INVALID"),
        ({"exp": "tomorrow"}, "TOKEN_INVALID"),
        ({"nbf": int(time.time()) + 3600}, "TOKEN_INVALID"),
        ({"iat": int(time.time()) + 3600}, "TOKEN_INVALID"),
        ({"iss": "https://issuer.example/other"}, "TOKEN_INVALID"),
        ({"iss": None}, "TOKEN_INVALID"),
        ({"aud": "another"}, "TOKEN_INVALID"),
        ({"aud": ["another", 7, None]}, "TOKEN_INVALID"),
        ({"aud": None}, "TOKEN_INVALID"),
        ({"aud": None, "client_id": AUDIENCE}, "TOKEN_INVALID"),
        ({"sub": None}, "TOKEN_INVALID"),
        ({"sub": ""}, "TOKEN_INVALID"),
        ({"sub": 7}, "TOKEN_INVALID"),
        ({"custom:tenant": {"id": 7}}, "TOKEN_INVALID"),
    ],
)
def test_a_token_that_is_not_for_us_is_refused(jwt_kind: Kind, issuer: Issuer, claims: Any, condition: str) -> None:
    assert refusal(jwt_kind.open(), {"authorization": f"Bearer {issuer.token(claims)}"}) == condition


def test_a_token_may_have_just_expired(jwt_kind: Kind, issuer: Issuer) -> None:
    token = issuer.token({"exp": int(time.time()) - 5, "aud": ["another", AUDIENCE]})
    assert identified(jwt_kind.open(), {"authorization": f"Bearer {token}"}).caller.user == "ada"


def forged(issuer: Issuer) -> dict[str, str]:
    """Tokens that somebody else made, by what they try."""
    public = issuer.served("/keys/first") or b""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": now + 300}
    none = ".".join(padded(json.dumps(part).encode()).rstrip(b"=").decode() for part in ({"alg": "none"}, claims)) + "."
    header, payload, signature = issuer.token().split(".")
    other = padded(json.dumps(claims | {"sub": "bob"}).encode()).rstrip(b"=").decode()
    stranger = RSAKey.generate_key(2048)
    mac = ".".join(
        padded(json.dumps(part).encode()).rstrip(b"=").decode() for part in ({"alg": "HS256", "kid": "first"}, claims)
    )
    mac += "." + padded(hmac.digest(public, mac.encode(), "sha256")).rstrip(b"=").decode()
    return {
        "no algorithm": none,
        "the public key as a secret": mac,
        "another payload": f"{header}.{other}.{signature}",
        "no signature": f"{header}.{payload}.",
        "another key under the same id": jwt.encode({"alg": "RS256", "kid": "first"}, claims, stranger),
        "its own key": jwt.encode(
            {"alg": "RS256", "kid": "first", "jwk": stranger.as_dict(private=False)}, claims, stranger
        ),
        "another algorithm of the key": jwt.encode(
            {"alg": "PS512", "kid": "first"}, claims, issuer.keys["first"], algorithms=["PS512"]
        ),
        "a critical header": jwt.encode({"alg": "RS256", "kid": "first"}, claims, issuer.keys["first"]).replace(
            header, padded(json.dumps({"alg": "RS256", "kid": "first", "crit": ["exp"]}).encode()).rstrip(b"=").decode()
        ),
    }


def test_forged_tokens_are_refused(jwt_kind: Kind, issuer: Issuer) -> None:
    callers = jwt_kind.open()
    conditions = {
        what: refusal(callers, {"authorization": f"Bearer {token}"}) for what, token in forged(issuer).items()
    }
    assert conditions == dict.fromkeys(conditions, "TOKEN_INVALID")


def test_both_kinds_of_cognitos_tokens_are_taken(jwt_kind: Kind, issuer: Issuer) -> None:
    access = issuer.token({"aud": None, "client_id": AUDIENCE, "token_use": "access", "scope": "openid rag/ask"})
    identity = issuer.token({"token_use": "id"})
    for only, good, bad in (("access", access, identity), ("id", identity, access)):
        assert identified(jwt_kind.open(), {"authorization": f"Bearer {good}"}).caller.user == "ada"
        callers = jwt_kind.open(token_use=only)
        assert identified(callers, {"authorization": f"Bearer {good}"}).caller.user == "ada"
        assert refusal(callers, {"authorization": f"Bearer {bad}"}) == "TOKEN_INVALID"
    scoped = jwt_kind.open(scope="rag/ask")
    assert identified(scoped, {"authorization": f"Bearer {access}"}).caller.user == "ada"
    assert refusal(scoped, {"authorization": f"Bearer {identity}"}, ForbiddenError) == "SCOPE_MISSING"


def test_keys_rotate_and_unknown_ones_cost_one_fetch(issuer: Issuer) -> None:
    clock = [0.0]
    kept = KeyCache(lambda: dict(issuer.keys) if issuer.served("/jwks.json") else {}, lambda: clock[0])

    async def story() -> None:
        assert await kept.key("first") is await kept.key("first") is await kept.key(None)
        issuer.rotate("second")
        assert await kept.key("second") is None, "fetched a moment ago"
        clock[0] += REFETCH_SECONDS
        assert await kept.key("second") is not None
        assert await kept.key("first") is None
        issuer.keys = {}
        clock[0] += REFRESH_SECONDS + 1
        assert await kept.key("second") is None, "withdrawn"

    asyncio.run(story())


def test_a_flood_of_unknown_keys_asks_the_issuer_once(jwt_kind: Kind, issuer: Issuer) -> None:
    callers = jwt_kind.open()
    made = RSAKey.generate_key(2048)

    async def flood() -> list[Any]:
        tokens = [jwt.encode({"alg": "RS256", "kid": f"unknown-{n}"}, {"sub": "eve"}, made) for n in range(30)]
        asked = [callers.identify({"authorization": f"Bearer {token}"}) for token in tokens]
        return await asyncio.gather(*asked, return_exceptions=True)

    assert {type(error) for error in asyncio.run(flood())} == {SignInError}
    assert issuer.asked == ["/jwks.json"]


@pytest.mark.parametrize("what", ["away", "status", "elsewhere", "no set", "a secret", "huge"])
def test_an_issuer_that_is_away_is_no_fault_of_the_caller(jwt_kind: Kind, issuer: Issuer, what: str) -> None:
    token, callers = issuer.token(), jwt_kind.open()
    match what:
        case "away":
            callers = jwt_kind.open(jwks_url="http://127.0.0.1:9/jwks.json")
        case "status":
            issuer.status = 500
        case "elsewhere":
            issuer.status = 302
        case "no set":
            issuer.body = b"<html>"
        case "a secret":
            issuer.body = json.dumps({"keys": [OctKey.generate_key(256).as_dict() | {"kid": "first"}, 7]}).encode()
        case _:
            issuer.body = b" " * 300_000
    assert refusal(callers, {"authorization": f"Bearer {token}"}, UnavailableError) in {"KEYS_UNAVAILABLE", "NO_KEYS"}
    assert len(issuer.asked) <= 1
    with pytest.raises(PipelineError):
        callers.check()


def test_keys_that_were_fetched_outlive_their_issuer(issuer: Issuer) -> None:
    clock = [0.0]

    def fetch() -> dict[str, Any]:
        if issuer.status != 200:
            raise UnavailableError("away")
        return dict(issuer.keys)

    kept = KeyCache(fetch, lambda: clock[0])
    assert asyncio.run(kept.key("first")) is not None
    issuer.status, clock[0] = 500, 10 * REFRESH_SECONDS
    assert asyncio.run(kept.key("first")) is not None
    with pytest.raises(UnavailableError):
        asyncio.run(kept.key("second"))


@pytest.mark.parametrize(
    ("header", "claims", "condition"),
    [
        ({"signer": LOAD_BALANCER.replace("123456789012", "210987654321")}, {}, "TOKEN_INVALID"),
        ({"signer": None}, {}, "TOKEN_INVALID"),
        ({"client": "another"}, {}, "TOKEN_INVALID"),
        ({"exp": int(time.time()) - 31}, {}, "TOKEN_EXPIRED"),
        ({"exp": None}, {}, "TOKEN_INVALID"),
        ({"alg": "HS256"}, {}, "TOKEN_INVALID"),
        ({"alg": "none"}, {}, "TOKEN_INVALID"),
        ({"kid": "../jwks.json"}, {}, "TOKEN_INVALID"),
        ({"kid": "87654321-1234-1234-1234-123456789012"}, {}, "TOKEN_INVALID"),
        ({}, {"sub": None}, "TOKEN_INVALID"),
    ],
)
def test_a_load_balancers_token_is_verified(
    alb_kind: Kind, issuer: Issuer, header: Any, claims: Any, condition: str
) -> None:
    token = issuer.load_balancer_token(claims, **header)
    assert refusal(alb_kind.open(), {"x-amzn-oidc-data": token}) == condition
    assert [path for path in issuer.asked if not path.startswith("/keys/")] == []


def test_a_load_balancers_claims_cannot_be_changed(alb_kind: Kind, issuer: Issuer) -> None:
    header, payload, signature = issuer.load_balancer_token().split(".")
    changed = padded(json.dumps({"sub": "bob", "exp": int(time.time()) + 300}).encode()).decode()
    assert refusal(alb_kind.open(), {"x-amzn-oidc-data": f"{header}.{changed}.{signature}"}) == "TOKEN_INVALID"
    assert refusal(alb_kind.open(), {"authorization": f"Bearer {header}.{payload}.{signature}"}) == "SIGN_IN_NEEDED"

"""An issuer of tokens: its keys, its tokens, and the address that its public keys are at."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, Key, RSAKey
from joserfc.jws import JWSRegistry

ISSUER, AUDIENCE = "https://issuer.example/pool", "ragstream-page"
LOAD_BALANCER = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/rag/50dc6c495c0c9188"


@dataclass
class Issuer:
    """Signs tokens, and serves `/jwks.json` and `/keys/ID` (PEM, as a load balancer's)."""

    url: str
    keys: dict[str, Key] = field(default_factory=dict)
    status: int = 200
    """Of every answer."""
    body: bytes | None = None
    """In place of the key set."""
    asked: list[str] = field(default_factory=list)
    """The paths that were asked for."""

    def rotate(self, key_id: str, kind: str = "RSA") -> None:
        """Sign with a new key, and forget all others."""
        parameters: Any = {"kid": key_id}
        made = RSAKey.generate_key(2048, parameters) if kind == "RSA" else ECKey.generate_key("P-256", parameters)
        self.keys = {key_id: made}

    def token(self, claims: Mapping[str, Any] | None = None, key_id: str = "", **header: Any) -> str:
        """A token for `ada` that is good now, but for what is said otherwise; a claim that is None is left out."""
        key_id = key_id or next(iter(self.keys))
        now = int(time.time())
        all_claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 300, **(claims or {})}
        present = {name: value for name, value in all_claims.items() if value is not None}
        algorithm = "RS256" if isinstance(self.keys[key_id], RSAKey) else "ES256"
        return jwt.encode(
            {"alg": algorithm, "kid": key_id, **header}, present, self.keys[key_id], algorithms=[algorithm]
        )

    def load_balancer_token(self, claims: Mapping[str, Any] | None = None, **header: Any) -> str:
        """What an Application Load Balancer sends: padded, and with what a token's claims say in its header."""
        (key_id, key), *_ = self.keys.items()
        fields = {
            "typ": "JWT", "kid": key_id, "alg": "ES256", "iss": ISSUER, "client": AUDIENCE, "signer": LOAD_BALANCER,
            "exp": int(time.time()) + 120, **header,
        }  # fmt: skip
        parts = [
            padded(json.dumps(part).encode())
            for part in (fields, {"sub": "ada", "exp": fields["exp"], **(claims or {})})
        ]
        assert isinstance(key, ECKey)
        signature = JWSRegistry.algorithms["ES256"].sign(b".".join(parts), key)
        return b".".join([*parts, padded(signature)]).decode()

    def served(self, path: str) -> bytes | None:
        if path == "/jwks.json":
            keys = [key.as_dict(private=False) for key in self.keys.values()]
            return json.dumps({"keys": keys}).encode() if self.body is None else self.body
        key = self.keys.get(path.removeprefix("/keys/"))
        return key.as_pem(private=False) if isinstance(key, RSAKey | ECKey) else None


@cache
def _first_key() -> Key:
    """Made once: an RSA key takes a tenth of a second."""
    return RSAKey.generate_key(2048, {"kid": "first"})


def padded(part: bytes) -> bytes:
    return base64.urlsafe_b64encode(part)


@contextmanager
def issuing() -> Iterator[Issuer]:
    """An issuer with an RSA key `first`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            body = issuer.served(self.path)
            self.send_response(issuer.status if body is not None else 404)
            if issuer.status == 302:
                self.send_header("Location", f"{issuer.url}/jwks.json?again")
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer = Issuer(f"http://127.0.0.1:{server.server_address[1]}")
    issuer.keys = {"first": _first_key()}
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

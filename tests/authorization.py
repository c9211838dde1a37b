"""An OAuth authorization server (RFC 6749, 7591, 7636, 8414) whose user consents at once, and the official MCP client of it."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from tests.key_server import Issuer

REDIRECT = "http://127.0.0.1:9/signed-in"


@dataclass
class AuthorizationServer:
    """Its tokens are signed by an issuer's keys, and have these claims."""

    url: str
    issuer: Issuer
    claims: dict[str, Any] = field(default_factory=dict)
    scopes: list[str] = field(default_factory=list)
    """Of each token, as the client requested it."""
    resources: list[str] = field(default_factory=list)
    """The resource that each token was requested for."""
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def metadata(self) -> dict[str, Any]:
        endpoints = {f"{name}_endpoint": f"{self.url}/{path}" for name, path in _ENDPOINTS.items()}
        return {
            "issuer": self.url, "response_types_supported": ["code"], "code_challenge_methods_supported": ["S256"],
            "grant_types_supported": ["authorization_code"], "token_endpoint_auth_methods_supported": ["none"], **endpoints,
        }  # fmt: skip

    def authorize(self, query: dict[str, str]) -> str:
        """Where the user's browser is sent."""
        code = secrets.token_urlsafe()
        self._codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def token(self, form: dict[str, str]) -> dict[str, Any] | None:
        """The token of a code that is used once, by whoever asked for it; None for anybody else."""
        query = self._codes.pop(form["code"], None)
        digest = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if query is None or digest.decode() != query["code_challenge"]:
            return None
        scope = query.get("scope", "")
        self.scopes.append(scope)
        self.resources.append(form.get("resource", ""))
        token = self.issuer.token({"iss": self.url, "scope": scope, **self.claims})
        return {"access_token": token, "token_type": "Bearer", "expires_in": 300, "scope": scope}

    def client(self, resource: str) -> OAuthClientProvider:
        """What signs a client of the resource in, as it is refused."""
        browser = _Browser()
        about = OAuthClientMetadata(
            redirect_uris=[AnyUrl(REDIRECT)], client_name="tests", token_endpoint_auth_method="none"
        )
        return OAuthClientProvider(resource, about, _TokenStorage(), browser.redirected, browser.answered)


_ENDPOINTS = {"authorization": "authorize", "token": "token", "registration": "register"}


class _Browser:
    """Goes where the client sends its user, and comes back."""

    location = ""

    async def redirected(self, url: str) -> None:
        async with httpx.AsyncClient() as client:
            self.location = (await client.get(url)).headers["location"]

    async def answered(self) -> tuple[str, str | None]:
        query = parse_qs(urlsplit(self.location).query)
        return query["code"][0], query["state"][0]


class _TokenStorage:
    """What the client has of its registration and its tokens."""

    tokens: OAuthToken | None = None
    registered: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.registered

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.registered = client_info


@contextmanager
def authorizing(issuer: Issuer, **claims: Any) -> Iterator[AuthorizationServer]:
    """An authorization server whose tokens have these claims."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path == "/.well-known/oauth-authorization-server":
                self._respond(200, authority.metadata())
            elif url.path == "/authorize":
                self.send_response(302)
                self.send_header("Location", authority.authorize(dict(parse_qsl(url.query))))
                self.end_headers()
            else:
                self._respond(404, {})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            if self.path == "/register":
                self._respond(201, json.loads(body) | {"client_id": secrets.token_hex(8)})
            elif (token := authority.token(dict(parse_qsl(body)))) is None:
                self._respond(400, {"error": "invalid_grant"})
            else:
                self._respond(200, token)

        def _respond(self, status: int, body: dict[str, Any]) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    authority = AuthorizationServer(f"http://127.0.0.1:{server.server_address[1]}", issuer, claims)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield authority
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""Where a client that is not signed in learns who signs it in: the metadata of a protected resource (RFC 9728).

Only tokens of an OpenID provider have an authorization server. Whoever has an API key, or is behind a load balancer that signs
people in, needs none.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from schemas.transport import is_this_machine
from service.callers.jwt.config import JwtConfig
from service.config import ServeConfig
from service.http.errors import Answerable
from service.http.routing import ROUTE, json_response

WELL_KNOWN = "/.well-known/oauth-protected-resource"
"""RFC 9728, 3; the path of the resource follows it (3.1)."""


class Discovery:
    """The metadata of the resource at a path, for callers with tokens of one issuer."""

    def __init__(self, config: ServeConfig, callers: JwtConfig, path: str, name: str) -> None:
        self._has_certificate = config.certificate is not None
        self._issuer, self._scope = callers.issuer, callers.scope
        self._path, self._name = path, name

    def routes(self) -> list[Route]:
        """The metadata at the resource's own place, and at the root, which older clients ask for."""
        return [
            Route(path, partial(_answered, self), methods=["GET"]) for path in (f"{WELL_KNOWN}{self._path}", WELL_KNOWN)
        ]

    def metadata(self, request: Request) -> dict[str, Any]:
        """The members of RFC 9728, 2."""
        return {
            "resource": f"{self._origin(request)}{self._path}",
            "authorization_servers": [self._issuer],
            "bearer_methods_supported": ["header"],
            "resource_name": self._name,
            **({} if self._scope is None else {"scopes_supported": [self._scope]}),
        }

    def challenge(self, request: Request, fault: Answerable) -> str:
        """`WWW-Authenticate` of a refusal: the scope that is needed (RFC 6750, 3), and the metadata (RFC 9728, 5.1)."""
        scheme, _, error = fault.headers["WWW-Authenticate"].partition(" ")
        scope = "" if self._scope is None else f'scope="{self._scope}"'
        metadata = f'resource_metadata="{self._origin(request)}{WELL_KNOWN}{self._path}"'
        return f"{scheme} {', '.join(filter(None, (error, scope, metadata)))}"

    def _origin(self, request: Request) -> str:
        """The address that the client has used, whose host was looked at. Beyond this machine it is TLS, whoever ends that."""
        host = request.headers.get("host", "")
        is_tls = self._has_certificate or not is_this_machine(request.url.hostname or "")
        return f"{'https' if is_tls else 'http'}://{host}"


def discovery_of(config: ServeConfig, path: str, name: str) -> Discovery | None:
    """The discovery of the resource at a path; None where no authorization server signs its callers in."""
    return Discovery(config, config.callers, path, name) if isinstance(config.callers, JwtConfig) else None


async def _answered(discovery: Discovery, request: Request) -> Response:
    request.scope[ROUTE] = WELL_KNOWN
    return json_response(discovery.metadata(request))

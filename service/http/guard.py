"""What every request passes, and every answer gets: names, headers, a line of the log, metrics, and no more while stopping."""

from __future__ import annotations

import hashlib
import logging
import re
import time
import uuid
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.transport import is_this_machine
from service.callers.none import NoSignInConfig
from service.callers.protocol import Identity
from service.http.context import Context
from service.http.errors import CLIENT_GONE, RequestError, answerable
from service.http.routing import IDENTITY, NO_ROUTE, ROUTE, refused
from service.http.work import stopping

logger = logging.getLogger(__name__)

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""On every answer: the page loads nothing from elsewhere, runs nothing inline, and stands in no frame."""
_ALWAYS = frozenset({"/healthz", "/healthz/live", "/metrics"})
"""Answered while the service stops, and under any name: load balancers ask by address."""
_PAGE = "page"
"""The route of the page's files, in metrics."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")


class Guard:
    """The outermost application of the service."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app = app
        self._context = context
        self._hosts = frozenset(host.lower() for host in context.config.hosts)
        self._any_host = not self._hosts and not isinstance(context.config.callers, NoSignInConfig)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; refuse everything but HTTP."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        request_id, began, status = uuid.uuid4().hex, time.monotonic(), 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)  # the page's own are stricter
                headers["X-Request-Id"] = request_id
                headers.setdefault("Cache-Control", "no-store")
                if self._context.draining:
                    headers["Connection"] = "close"
            await send(message)

        try:
            fault = self._fault(Headers(scope=scope), scope["path"])
            app = self._app if fault is None else refused(self._context, scope, answerable(fault))
            await app(scope, receive, sent)
        finally:
            self._note(scope, status or CLIENT_GONE, time.monotonic() - began, request_id)

    def _fault(self, headers: Headers, path: str) -> RequestError | None:
        if path in _ALWAYS:
            return None
        if self._context.draining:
            return stopping()
        if not self._is_ours(headers.get("host", "")):
            return RequestError(
                421, "the service has another name", condition="HOST_UNKNOWN", hint="add the name to `serve.hosts`"
            )
        if not is_of_same_site(headers):
            return RequestError(
                403, "a page of another site sent this", condition="ORIGIN_FOREIGN", hint="open the service's own page"
            )
        return None

    def _is_ours(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1].lower()
        return self._any_host or name in self._hosts or is_this_machine(name)

    def _note(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        """Count a request, and log it without a word of what was asked."""
        route, identity = scope.get(ROUTE, _PAGE if is_of_page(scope["path"]) else NO_ROUTE), scope.get(IDENTITY)
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        self._context.metrics.requests.labels(method, route, str(status)).inc()
        self._context.metrics.seconds.labels(route).observe(seconds)
        line = {
            "request_id": request_id, "method": method, "route": route, "status": status,
            "milliseconds": round(seconds * 1000, 1), "caller": _digest(identity),
        }  # fmt: skip
        logger.info("request", extra={"context": line})


def is_of_page(path: str) -> bool:
    """Whether a path is of the page's files, which need no sign-in."""
    return path == "/" or path.startswith("/page/")


def is_of_same_site(headers: Headers) -> bool:
    """Whether a browser sent this from the service's own page, or no browser did (RFC 6454; Fetch, "Origin header")."""
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()


def _digest(identity: Identity | None) -> str | None:
    """Who asked, so that lines of one user belong together and name nobody."""
    if identity is None or identity.caller.user is None:
        return None
    return hashlib.sha256(identity.caller.user.encode("utf-8", "surrogatepass")).hexdigest()[:12]

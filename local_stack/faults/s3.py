"""A proxy before an S3 endpoint that adds the latency of S3, and lets keys expire."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Literal

from aiohttp import web

from local_stack.faults.http_proxy import HttpProxy

type Point = Literal["asked", "done"]
"""Of a put: before it is forwarded, and when S3 has it but the client has no response."""

_EXPIRING = re.compile(r"Credential=EXPIRES(\d+)/")
_DROPPED_HEADERS = frozenset({"transfer-encoding", "connection", "keep-alive", "date", "server"})


class S3Proxy(HttpProxy):
    """Forwards requests unchanged, each after `delay` seconds.

    A key named EXPIRES and a Unix time is refused from that time on, as AWS refuses an expired token.
    """

    def __init__(self, target_url: str, delay: float = 0.0) -> None:
        """Take the endpoint's URL and a delay in seconds."""
        super().__init__(target_url)
        self.delay = delay
        self.ignores_conditions = False
        """Whether to drop If-None-Match, as a server that does not support it."""
        self.goes_on: Callable[[str, Point], bool] = lambda _, __: True
        """Called with the path of each put at both points; False resets the connection."""
        self.requests: Counter[str] = Counter()
        """Received since the start, by method; a listing is LIST."""
        self.keys: set[str] = set()
        """Expiry times in the keys that were used."""
        self.refused = 0
        """Requests with an expired key."""

    async def _answer(self, request: web.Request) -> web.Response:
        listing = request.method == "GET" and "list-type" in request.query
        self.requests["LIST" if listing else request.method] += 1
        body = await request.read()
        if self.delay:
            await asyncio.sleep(self.delay)
        if self._expired(request):
            return _expired_token()
        if request.method == "PUT" and not self.goes_on(request.path, "asked"):
            return _reset(request)
        dropped = _DROPPED_HEADERS | ({"if-none-match"} if self.ignores_conditions else set())
        response = await self._forward(request, body, dropped)
        if request.method == "PUT" and not self.goes_on(request.path, "done"):
            return _reset(request)
        if request.method != "HEAD":  # a HEAD's length is that of the object, without a body
            response.headers.pop("Content-Length", None)
        return web.Response(status=response.status, body=response.body or None, headers=response.headers)

    def _expired(self, request: web.Request) -> bool:
        expiry = _EXPIRING.search(request.headers.get("Authorization", ""))
        if expiry is None:
            return False
        self.keys.add(expiry[1])
        if time.time() < int(expiry[1]):
            return False
        self.refused += 1
        return True


def _reset(request: web.Request) -> web.Response:
    assert request.transport is not None  # noqa: S101  it is there until the answer
    request.transport.abort()
    return web.Response()


def _expired_token() -> web.Response:
    body = "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
    return web.Response(status=400, text=body, content_type="application/xml")

"""A proxy before an S3 endpoint that makes it as far away as S3 is, and lets keys expire."""

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
"""Of a put: before it is passed on, and when S3 has it but the client has no answer."""

_EXPIRING = re.compile(r"Credential=EXPIRES(\d+)/")
_HOP = {"transfer-encoding", "connection", "keep-alive", "date", "server"}


class S3Proxy(HttpProxy):
    """Passes requests on as they are, each `delay` seconds later.

    A key named EXPIRES and a Unix time is refused from that time on, as AWS refuses an expired token.
    """

    def __init__(self, target_url: str, delay: float = 0.0) -> None:
        """Stand before this endpoint; the proxy's own port is taken from the operating system."""
        super().__init__(target_url)
        self.delay = delay
        self.ignores_conditions = False
        """Takes If-None-Match out, as a server does that does not know it."""
        self.goes_on: Callable[[str, Point], bool] = lambda _, __: True
        """Asked of each put, by its path, at both points; where it is not to go on, the connection is reset."""
        self.requests: Counter[str] = Counter()
        """Received since the start, by method; a listing is LIST."""
        self.keys: set[str] = set()
        """Expiry times, as written in the keys that were used."""
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
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        if self.ignores_conditions:
            headers.pop("If-None-Match", None)
        url = self.target_url + request.raw_path
        if request.method == "PUT" and not self.goes_on(request.path, "asked"):
            return _reset(request)
        async with self._client.request(request.method, url, data=body, headers=headers) as answer:
            content = await answer.read()
            if request.method == "PUT" and not self.goes_on(request.path, "done"):
                return _reset(request)
            passed = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            if request.method != "HEAD":  # its length is that of the object, and no body follows
                passed.pop("Content-Length", None)
            return web.Response(status=answer.status, body=content or None, headers=passed)

    def _expired(self, request: web.Request) -> bool:
        found = _EXPIRING.search(request.headers.get("Authorization", ""))
        if found is None:
            return False
        self.keys.add(found[1])
        if time.time() < int(found[1]):
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

"""A proxy before an S3 endpoint that makes it as far away as S3 is, and lets keys expire."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

import aiohttp
from aiohttp import web

from local_stack.ports import HOST, free_ports

_EXPIRING = re.compile(r"Credential=EXPIRES(\d+)/")
_HOP = {"transfer-encoding", "connection", "keep-alive", "date", "server"}


class S3Proxy:
    """Passes requests on as they are, each `delay` seconds later.

    A key named EXPIRES and a Unix time is refused from that time on, as AWS refuses an expired token.
    """

    def __init__(self, target_url: str, delay: float = 0.0) -> None:
        """Stand before this endpoint; the proxy's own port is taken from the operating system."""
        self.target_url = target_url
        self.delay = delay
        self.ignores_conditions = False
        """Takes If-None-Match out, as a server does that does not know it."""
        self.lose_commits = 0
        """So many puts of log entries are done and not answered: the connection is reset."""
        self.port = free_ports(1)[0]
        self.requests: Counter[str] = Counter()
        """Received since the start, by method; a listing is LIST."""
        self.keys: set[str] = set()
        """Expiry times, as written in the keys that were used."""
        self.refused = 0
        """Requests with an expired key."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"s3-proxy-{self.port}", daemon=True)
        self._end: Callable[[], Any] = lambda: None

    @property
    def endpoint_url(self) -> str:
        """For clients, in place of the endpoint's own."""
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(timeout=10)
        return self

    def __exit__(self, *_: object) -> None:
        """Close every connection and free the port."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        self._client = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        application = web.Application(client_max_size=1024 * 1024 * 1024)
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, HOST, self.port).start()

        async def end() -> None:
            await runner.cleanup()
            await self._client.close()

        self._end = end

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
        async with self._client.request(request.method, url, data=body, headers=headers) as answer:
            content = await answer.read()
            if self.lose_commits and request.method == "PUT" and request.path.endswith(".json"):
                self.lose_commits -= 1
                assert request.transport is not None  # noqa: S101  it is there until the answer
                request.transport.abort()
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


def _expired_token() -> web.Response:
    body = "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
    return web.Response(status=400, text=body, content_type="application/xml")

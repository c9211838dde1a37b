"""A proxy before an HTTP endpoint; its subclasses decide about each request."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from typing import NamedTuple

import aiohttp
from aiohttp import web

from local_stack.faults.threaded_proxy import ThreadedProxy
from local_stack.ports import HOST

_LARGEST = 1024 * 1024 * 1024
"""Bytes of a request."""


class Response(NamedTuple):
    """The endpoint's response to a forwarded request."""

    status: int
    body: bytes
    headers: dict[str, str]


class HttpProxy(ThreadedProxy):
    """Listens before one endpoint."""

    def __init__(self, target_url: str) -> None:
        """Take the endpoint's URL; the proxy's own port is taken from the operating system."""
        super().__init__()
        self.target_url = target_url

    @property
    def endpoint_url(self) -> str:
        """The URL for clients, in place of the endpoint's own."""
        return f"http://{HOST}:{self.port}"

    @abstractmethod
    async def _answer(self, request: web.Request) -> web.Response:
        """Answer a request, by `_forward` or without it."""

    async def _forward(self, request: web.Request, body: bytes, dropped: Collection[str]) -> Response:
        """Send a request to the endpoint, without the dropped headers (lower case) in either direction."""
        headers = {name: value for name, value in request.headers.items() if name.lower() not in dropped}
        url = self.target_url + request.raw_path
        async with self._client.request(request.method, url, data=body, headers=headers) as response:
            content = await response.read()
            passed = {name: value for name, value in response.headers.items() if name.lower() not in dropped}
            return Response(response.status, content, passed)

    async def _listen(self) -> None:
        self._client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False)
        application = web.Application(client_max_size=_LARGEST)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, self.port).start()

    async def _close(self) -> None:
        await self._runner.cleanup()
        await self._client.close()

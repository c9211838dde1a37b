"""A proxy before an HTTP endpoint, on a thread and an event loop of its own; what is done to a request is its kind's matter."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import aiohttp
from aiohttp import web

from local_stack.ports import HOST, free_ports

_LARGEST = 1024 * 1024 * 1024
"""Bytes of a request."""


class HttpProxy(ABC):
    """Listens from `start` to `stop`, or for the length of a `with` block."""

    def __init__(self, target_url: str) -> None:
        """Stand before this endpoint; the proxy's own port is taken from the operating system."""
        self.target_url = target_url
        self.port = free_ports(1)[0]
        self._loop = asyncio.new_event_loop()
        name = f"{type(self).__name__}-{self.port}"
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._end: Callable[[], Any] = lambda: None

    @property
    def endpoint_url(self) -> str:
        """For clients, in place of the endpoint's own."""
        return f"http://{HOST}:{self.port}"

    def start(self) -> Self:
        """Listen."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(timeout=10)
        return self

    def stop(self) -> None:
        """Close every connection and free the port."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        """Start it."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    @abstractmethod
    async def _answer(self, request: web.Request) -> web.Response:
        """Answer a request, by way of `self._client` or without."""

    async def _listen(self) -> None:
        self._client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False)
        application = web.Application(client_max_size=_LARGEST)
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, HOST, self.port).start()

        async def end() -> None:
            await runner.cleanup()
            await self._client.close()

        self._end = end

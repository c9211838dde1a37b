"""A proxy on a thread and an event loop of its own, which the test that started it controls by calling it."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, Self

from local_stack.ports import free_ports


class ThreadedProxy(ABC):
    """Listens from `start` to `stop`, or for the length of a `with` block."""

    def __init__(self) -> None:
        """Take a port from the operating system; nothing listens yet."""
        self.port = free_ports(1)[0]
        self._loop = asyncio.new_event_loop()
        name = f"{type(self).__name__}-{self.port}"
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)

    def start(self) -> Self:
        """Listen."""
        self._thread.start()
        self._wait(self._listen())
        return self

    def stop(self) -> None:
        """Close every connection and free the port."""
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        """Start it."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine on the proxy's loop, and wait for it."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    @abstractmethod
    async def _listen(self) -> None:
        """Open the port."""

    @abstractmethod
    async def _close(self) -> None:
        """Close the port and every connection."""

"""Faults on demand: a TCP proxy in front of any part that delays, throttles, stalls, drops or refuses connections.

It is a Python object, steered by calling it: no second server has to be up for a test to break the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self

from local_stack.ports import HOST, free_ports

_PIECE = 64 * 1024
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: closing sends RST, as a peer that died does


class FaultProxy:
    """Passes bytes on in both directions, unchanged and in order, until told otherwise.

    A client is given `port` in place of the server's.
    """

    def __init__(self, target_port: int) -> None:
        """Stand before the server on this port; the proxy's own port is taken from the operating system."""
        self.target_port = target_port
        self.port = free_ports(1)[0]
        self.connections = 0
        """Accepted since the start."""
        self.bytes_passed = 0
        """In both directions, since the start."""
        self._delay = 0.0
        self._rate = float("inf")
        self._open: set[asyncio.Future[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"fault-proxy-{self.port}", daemon=True)
        self._flowing = asyncio.Event()
        self._server: asyncio.Server | None = None

    def start(self) -> Self:
        """Listen."""
        self._thread.start()
        self.heal()
        return self

    def stop(self) -> None:
        """Drop every connection and free the port."""
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def delay(self, seconds: float) -> None:
        """Hold every piece (at most 64 KiB) back for so long, in each direction."""
        self._soon(lambda: setattr(self, "_delay", seconds))

    def throttle(self, bytes_per_second: float) -> None:
        """Pass no more than this, in each direction of each connection."""
        self._soon(lambda: setattr(self, "_rate", bytes_per_second))

    def stall(self) -> None:
        """Accept connections and pass nothing, as a server that hangs; what arrives meanwhile is kept."""
        self._soon(self._flowing.clear)

    def drop(self) -> None:
        """Reset every open connection; new ones are accepted."""
        self._wait(self._drop())

    def refuse(self) -> None:
        """Reset every open connection and listen no longer, as a server that is down."""
        self._wait(self._refuse())

    def heal(self) -> None:
        """Take all faults back; connections that were dropped stay so."""
        self._wait(self._heal())

    def __enter__(self) -> Self:
        """Start it."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    def _soon(self, change: Callable[[], object]) -> None:
        async def run() -> None:
            change()

        self._wait(run())

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _heal(self) -> None:
        self._delay, self._rate = 0.0, float("inf")
        self._flowing.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, HOST, self.port, reuse_address=True)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._drop()

    async def _drop(self) -> None:
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        # One that is cancelled before its first step has not reset it.
        task.add_done_callback(lambda done: _reset(writer) if done.cancelled() else None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass both directions on; whatever ends this but the end of both of them resets both connections."""
        try:
            target_reader, target_writer = await asyncio.open_connection(HOST, self.target_port)
        except (OSError, asyncio.CancelledError):
            _reset(writer)
            return
        try:
            await asyncio.gather(self._pump(reader, target_writer), self._pump(target_reader, writer))
        except (OSError, asyncio.CancelledError):
            _reset(target_writer)
            _reset(writer)
        else:
            target_writer.close()
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one direction on until its end; OSError where either side is reset."""
        while piece := await reader.read(_PIECE):
            await asyncio.sleep(self._delay + len(piece) / self._rate)
            await self._flowing.wait()
            writer.write(piece)
            await writer.drain()
            self.bytes_passed += len(piece)
        writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection the hard way."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()

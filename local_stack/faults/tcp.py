"""Injects network faults: a TCP proxy before any part that delays, throttles, stalls, drops or refuses connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import weakref
from collections.abc import Callable
from pathlib import Path

from local_stack.faults.threaded_proxy import ThreadedProxy
from local_stack.ports import HOST

_CHUNK_BYTES = 64 * 1024
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: closing sends RST, as a peer that died does


class FaultProxy(ThreadedProxy):
    """Forwards bytes in both directions, unchanged and in order, until a fault is set.

    A client connects to `port` in place of the server's; by TLS, where the proxy has a certificate.
    """

    def __init__(self, target_port: int, certificate: Path | None = None) -> None:
        """Take the server's port; the proxy's own is taken from the operating system. A certificate's file has its key too."""
        super().__init__()
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._tls.load_cert_chain(certificate)
        self.target_port = target_port
        self.connections = 0
        """Accepted since the start."""
        self.bytes_passed = 0
        """In both directions, since the start."""
        self._delay = 0.0
        self._rate = float("inf")
        self._open: set[asyncio.Future[None]] = set()
        self._transports = weakref.WeakSet[asyncio.WriteTransport]()
        self._flowing = asyncio.Event()
        self._server: asyncio.Server | None = None

    def delay(self, seconds: float) -> None:
        """Delay every chunk (at most 64 KiB), in each direction."""
        self._soon(lambda: setattr(self, "_delay", seconds))

    def throttle(self, bytes_per_second: float) -> None:
        """Limit the throughput, in each direction of each connection."""
        self._soon(lambda: setattr(self, "_rate", bytes_per_second))

    def stall(self) -> None:
        """Accept connections and forward nothing, as a server that hangs; bytes that arrive are kept."""
        self._soon(self._flowing.clear)

    def drop(self) -> None:
        """Reset every open connection; new ones are accepted."""
        self._wait(self._drop())

    def refuse(self) -> None:
        """Reset every open connection and stop listening, as a server that is down."""
        self._wait(self._close())

    def heal(self) -> None:
        """Remove all faults; dropped connections stay dropped."""
        self._wait(self._listen())

    def _soon(self, change: Callable[[], object]) -> None:
        async def run() -> None:
            change()

        self._wait(run())

    async def _listen(self) -> None:
        self._delay, self._rate = 0.0, float("inf")
        self._flowing.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, HOST, self.port, reuse_address=True, ssl=self._tls)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            for _ in range(3):  # what was accepted before gets its task
                await asyncio.sleep(0)
        await self._drop()

    async def _drop(self) -> None:
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for transport in list(self._transports):  # also one that was closed and still has bytes to send
            transport.abort()
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._transports.add(writer.transport)
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        # A task that is cancelled before its first step has not reset the connection.
        task.add_done_callback(lambda done: _reset(writer) if done.cancelled() else None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward both directions; anything but the end of both resets both connections."""
        try:
            target_reader, target_writer = await asyncio.open_connection(HOST, self.target_port)
        except (OSError, asyncio.CancelledError):
            _reset(writer)
            return
        self._transports.add(target_writer.transport)
        try:
            await asyncio.gather(self._pump(reader, target_writer), self._pump(target_reader, writer))
        except (OSError, asyncio.CancelledError):
            _reset(target_writer)
            _reset(writer)
        else:
            target_writer.close()
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one direction until its end; OSError where either side is reset."""
        while chunk := await reader.read(_CHUNK_BYTES):
            await asyncio.sleep(self._delay + len(chunk) / self._rate)
            await self._flowing.wait()
            writer.write(chunk)
            await writer.drain()
            self.bytes_passed += len(chunk)
        if writer.can_write_eof():
            writer.write_eof()
        else:  # TLS has no half of a connection
            writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Reset a connection."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()

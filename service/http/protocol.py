"""HTTP/1.1 for clients that may be slow on purpose: the head of a request has its time, and connections are counted."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class TimedProtocol(H11Protocol):
    """Closes a connection whose request's head is not whole in time; uvicorn gives one byte all the time there is."""

    def __init__(self, *arguments: Any, header_timeout: float, most: int, **named: Any) -> None:
        """`header_timeout` is in seconds, `most` the number of open connections."""
        super().__init__(*arguments, **named)
        self._header_timeout = header_timeout
        self._most = most
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Begin with the time for the first head; refuse a connection that is one too many."""
        super().connection_made(transport)
        if len(self.connections) > self._most:
            transport.close()
            return
        self._begin()

    def data_received(self, data: bytes) -> None:
        """Begin the time anew where the first byte of a head came, and end it where the head is whole."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._end()
        elif self._timer is None and not self.transport.is_closing():
            self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time."""
        self._end()
        super().connection_lost(exc)

    def _begin(self) -> None:
        self._timer = self.loop.call_later(self._header_timeout, self._expired)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expired(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()


def timed(header_timeout: float, most: int) -> Any:
    """The protocol with its limits, for uvicorn's `http`."""
    return partial(TimedProtocol, header_timeout=header_timeout, most=most)

"""Synchronous work for asynchronous requests: a bounded pool, a time limit, and an end where the client leaves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from starlette.types import Message, Receive

from service.callers.protocol import Identity
from service.config import LimitsConfig
from service.http.errors import CLIENT_GONE, RequestError
from service.http.limits import Places


async def _staying() -> Message:
    """The messages of a client that sends none and does not go away."""
    forever: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    return await forever


class Work[T]:
    """One call in a thread. It holds its place until the thread is done, whoever still waits for it."""

    def __init__(self, call: Callable[[threading.Event], T], workers: Workers, deadline: float) -> None:
        """`call` takes an event that is set once nobody wants its result. `deadline` is a time of the loop."""
        self.cancelled = threading.Event()
        self.deadline = deadline
        self.reason: RequestError | None = None
        """Why it was cancelled."""
        self.cancellation: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once it was cancelled."""
        self.future: asyncio.Future[T] = asyncio.get_running_loop().run_in_executor(workers.pool, call, self.cancelled)
        self.future.add_done_callback(_retrieved)

    def cancel(self, reason: RequestError) -> None:
        """Tell the thread that nobody waits; the first reason stands."""
        if not self.future.done():
            self.reason = self.reason or reason
            self.cancelled.set()
            if not self.cancellation.done():
                self.cancellation.set_result(None)

    async def result(self, receive: Receive = _staying) -> T:
        """The call's result. `receive` says when the client goes away; without it the client stays.

        Raises:
            RequestError: its time is over (504), the service stops (503), or the client went away (`CLIENT_GONE`).
            Exception: what the call raised.
        """
        gone = asyncio.ensure_future(until_gone(receive))
        remaining = max(0.0, self.deadline - asyncio.get_running_loop().time())
        try:
            waited: set[asyncio.Future[Any]] = {self.future, self.cancellation, gone}
            await asyncio.wait(waited, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
            if not self.future.done():
                self.cancel(client_gone() if gone.done() else too_late())
            if self.reason is not None:
                raise self.reason
            return self.future.result()
        finally:
            gone.cancel()
            self.cancel(client_gone())


class Workers:
    """The pool, and the work in progress."""

    def __init__(self, limits: LimitsConfig) -> None:
        self.pool = ThreadPoolExecutor(limits.concurrent, thread_name_prefix="serve")
        self.places = Places(limits.concurrent, limits.concurrent_per_caller, "requests")
        self._timeout = limits.request_timeout
        self._running: set[Work[Any]] = set()

    def start[T](self, identity: Identity, call: Callable[[threading.Event], T]) -> Work[T]:
        """Start a call; raise RequestError where no place is free."""
        give_back = self.places.take(identity)
        try:
            work = Work(call, self, asyncio.get_running_loop().time() + self._timeout)
        except BaseException:
            give_back()
            raise
        self._running.add(work)

        def ended(_: object) -> None:
            give_back()
            self._running.discard(work)

        work.future.add_done_callback(ended)
        return work

    def cancel_all(self) -> None:
        """Tell all work in progress that the service stops."""
        for work in list(self._running):
            work.cancel(stopping())

    def close(self) -> None:
        """Let threads end; those that are stuck in a call do not keep the process."""
        self.pool.shutdown(wait=False, cancel_futures=True)


async def until_gone(receive: Receive) -> None:
    """Wait until the client has gone; its body was read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


def too_late() -> RequestError:
    """The error of a request whose time is over."""
    return RequestError(504, "the answer took too long", condition="REQUEST_TIMEOUT", hint="ask again, or for less")


def stopping() -> RequestError:
    """The error of a request that comes, or is still unanswered, when the service stops."""
    return RequestError(
        503, "the service is stopping", condition="SERVICE_STOPPING", hint="send the request again", retry_after=1
    )


def client_gone() -> RequestError:
    """The error of a request whose client went away; nobody reads it."""
    return RequestError(CLIENT_GONE, "the client went away", condition="CLIENT_GONE")


def _retrieved(future: asyncio.Future[Any]) -> None:
    """Look at a failure, which asyncio would log with its text where nobody waited for it any more."""
    with suppress(asyncio.CancelledError):
        future.exception()

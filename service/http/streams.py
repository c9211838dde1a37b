"""Streams of events to one client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any

from prometheus_client import Gauge
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from service.http.context import Context
from service.http.routing import ROUTE
from transforms.values import exact_json

_COMMENT_EVERY_SECONDS = 10.0
"""Load balancers close a connection that is quiet for a minute."""


def sse(name: str, data: Any) -> ServerSentEvent:
    """One event, with JSON of one line as its data."""
    return ServerSentEvent(exact_json.dumps(data, ascii_only=False), event=name, sep="\n")


def event_stream(
    context: Context, request: Request, events: AsyncGenerator[Any], ended: Callable[[], object]
) -> EventSourceResponse:
    """A response with these events and, between them, comments that keep the connection alive.

    `ended` is called once the client has gone, takes nothing for `send_timeout`, or has all.
    """
    return _Stream(
        events,
        context.metrics.streams.labels(request.scope[ROUTE]),
        ended,
        ping=_COMMENT_EVERY_SECONDS,
        ping_message_factory=lambda: ServerSentEvent(comment="", sep="\n"),
        send_timeout=context.config.limits.send_timeout,
    )


class _Stream(EventSourceResponse):
    """A stream that is counted while it is open, and whose events are closed when it ends, however it does."""

    def __init__(
        self, events: AsyncGenerator[Any], is_open: Gauge, ended: Callable[[], object], **options: Any
    ) -> None:
        super().__init__(events, **options)
        self._events = events
        self._is_open = is_open
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._is_open.track_inprogress(), suppress(SendTimeoutError):
                await super().__call__(scope, receive, send)
        finally:
            self._ended()
            await self._events.aclose()

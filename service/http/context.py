"""What every request of one service shares."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from service.assistant import AssistantService
from service.callers.protocol import Callers, Identity
from service.config import ServeConfig
from service.http.limits import Places, Rate
from service.http.metrics import Metrics
from service.http.work import Workers
from service.watching import Watching

type Handler = Callable[[Context, Request, Identity], Awaitable[Response]]


@dataclass
class Context:
    """The service behind the routes."""

    about: dict[str, Any]
    """What it is: pipeline, answerer, memory, tables."""
    config: ServeConfig
    assistant: AssistantService
    callers: Callers
    watching: Watching
    metrics: Metrics
    workers: Workers
    rate: Rate
    watches: Places
    draining: bool = False
    """Whether the service takes no more requests."""

    async def run[T](self, request: Request, identity: Identity, call: Callable[[], T]) -> T:
        """Run a call of the assistant in the pool; see `Work.result`."""
        return await self.workers.start(identity, lambda _: call()).result(request.receive)

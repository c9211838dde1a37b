"""`/healthz`: whether the process lives, and whether its store and its memory answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from starlette.requests import Request
from starlette.responses import Response

from schemas.errors import PipelineError
from service.http.context import Context
from service.http.routing import ROUTE, json_response

_FRESH_SECONDS = 1.0
"""How long an answer of the parts is used again: whoever asks is not signed in, and each check sends the parts a request."""
_MOST_SECONDS = 4.0
"""For a part to answer; load balancers wait for five by default."""


class Health:
    """Asks the parts, at most once a second however often it is asked itself."""

    def __init__(self, parts: dict[str, Callable[[], object]]) -> None:
        """By part: a call that raises where the part does not answer."""
        self._parts = parts
        self._threads = ThreadPoolExecutor(len(parts) * 2, thread_name_prefix="health")
        self._lock = asyncio.Lock()
        self._conditions: dict[str, str] = {}
        self._asked_at = float("-inf")

    async def conditions(self) -> dict[str, str]:
        """By part: `ok`, or the condition that it is in."""
        async with self._lock:
            if time.monotonic() - self._asked_at > _FRESH_SECONDS:
                answers = await asyncio.gather(*map(self._condition, self._parts.values()))
                self._conditions = dict(zip(self._parts, answers, strict=True))
                self._asked_at = time.monotonic()
            return self._conditions

    def close(self) -> None:
        """End its threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _condition(self, call: Callable[[], object]) -> str:
        try:
            await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(self._threads, call), _MOST_SECONDS)
        except TimeoutError:
            return "SLOW"
        except PipelineError as error:
            return error.condition
        return "ok"


async def live(_: Context, __: Health, request: Request) -> Response:
    """Whether the process answers, whatever its parts do."""
    request.scope[ROUTE] = "/healthz/live"
    return json_response({"live": True})


async def ready(context: Context, health: Health, request: Request) -> Response:
    """Whether requests are answered now: 503 where a part does not answer, or the service stops."""
    request.scope[ROUTE] = "/healthz"
    parts = await health.conditions()
    is_ready = not context.draining and set(parts.values()) <= {"ok"}
    return json_response({"live": True, "ready": is_ready, "parts": parts}, 200 if is_ready else 503)

"""`POST /v1/ask`: an answer, or the events of one while it is made."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from retrieval.access import Scope
from retrieval.answering.events import Event
from retrieval.conversation.turns import Session
from service.callers.protocol import Identity
from service.http.bodies import body_of
from service.http.context import Context
from service.http.errors import answerable
from service.http.messages import AskRequest
from service.http.routing import ROUTE, json_response
from service.http.streams import event_stream, sse
from service.http.work import Work, client_gone, too_late, until_gone

_FIRST_EVENT_SECONDS = 5.0
"""How long a stream waits for its first event, to be refused with a status where there is none."""


async def ask(context: Context, request: Request, identity: Identity) -> Response:
    """Answer with one object, or with events where `Accept` names those."""
    asked = await body_of(request, AskRequest, context.config.limits)
    if "text/event-stream" not in request.headers.get("accept", ""):
        call = partial(_answer, context, asked, identity, None)
        answer = await context.workers.start(identity, call).result(request.receive)
        context.metrics.count_answer(answer)
        return json_response(answer)
    return await _Stream(context, request, identity, asked).response()


def _answer(
    context: Context, asked: AskRequest, identity: Identity, on_event: Any, cancelled: threading.Event
) -> dict[str, Any]:
    session = None if asked.session is None else Session(asked.session, asked.turn_id)
    scope = Scope(asked.tables, asked.filters, identity.caller)
    return context.assistant.ask(asked.question, scope, session, on_event=on_event, cancelled=cancelled)


class _Stream:
    """The events of one answer. A client that leaves cancels it: the model is read no further, the turn stays unanswered."""

    def __init__(self, context: Context, request: Request, identity: Identity, asked: AskRequest) -> None:
        self._context = context
        self._request = request
        self._began = time.monotonic()
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def enqueue(event: Event) -> None:
            loop.call_soon_threadsafe(self._events.put_nowait, event)

        self._work: Work[dict[str, Any]] = context.workers.start(
            identity, partial(_answer, context, asked, identity, enqueue)
        )
        for ended in (self._work.future, self._work.cancellation):
            ended.add_done_callback(lambda _: self._events.put_nowait(None))

    async def response(self) -> Response:
        """The stream; a refusal before the first event is an error with a status."""
        gone = asyncio.ensure_future(until_gone(self._request.receive))
        first = asyncio.ensure_future(self._events.get())
        try:
            await asyncio.wait({first, gone}, timeout=_FIRST_EVENT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if gone.done() and not first.done():
                self._work.cancel(client_gone())
            if self._work.reason is not None or (first.done() and first.result() is None):
                self._raise_failure()
        except BaseException:
            first.cancel()
            self._work.cancel(client_gone())
            raise
        finally:
            gone.cancel()
        return event_stream(self._context, self._request, self._sent(first), lambda: self._work.cancel(client_gone()))

    def _raise_failure(self) -> None:
        """Raise what ended the work, if anything did."""
        if self._work.reason is not None:
            raise self._work.reason
        self._work.future.result()

    async def _sent(self, first: asyncio.Task[Event | None]) -> AsyncGenerator[Any]:
        """The events as they are sent; the last one is `answer` or `error`."""
        pending, said = first, False
        try:
            while (event := await self._next(pending)) is not None:
                if event.name == "sentence" and not said:
                    self._context.metrics.first_sentence_seconds.observe(time.monotonic() - self._began)
                    said = True
                yield sse(event.name, event.as_json())
                pending = asyncio.ensure_future(self._events.get())
            self._raise_failure()
            self._context.metrics.count_answer(self._work.future.result())
        except Exception as error:  # noqa: BLE001 - whatever it is, the stream ends with it
            fault = answerable(error)
            self._context.metrics.refused.labels(self._request.scope[ROUTE], fault.condition).inc()
            yield sse("error", fault.event)
        finally:
            pending.cancel()
            self._work.cancel(client_gone())

    async def _next(self, pending: asyncio.Task[Event | None]) -> Event | None:
        remaining = self._work.deadline - asyncio.get_running_loop().time()
        await asyncio.wait({pending}, timeout=max(0.0, remaining))
        if not pending.done():
            self._work.cancel(too_late())
            raise too_late()
        return pending.result()

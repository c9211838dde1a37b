"""The handlers of the API but for answers: search, rows, freshness, sessions, profile, feedback, who asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from retrieval.access import Scope
from service.callers.protocol import Identity, SignInError
from service.http.bodies import body_of
from service.http.context import Context
from service.http.errors import RequestError, answerable
from service.http.messages import FeedbackRequest, ProfileRequest, SearchRequest, WatchRequest
from service.http.routing import json_response
from service.http.streams import event_stream, sse
from service.http.work import stopping
from service.watching import MOST_DOCUMENTS

_OF_EXCHANGE = ("turn", "asked_at", "question", "state")


async def search(context: Context, request: Request, identity: Identity) -> Response:
    """The best documents for a query."""
    asked = await body_of(request, SearchRequest, context.config.limits)
    scope = Scope(asked.tables, asked.filters, identity.caller)
    result = await context.run(request, identity, partial(context.assistant.search, asked.query, asked.k, scope))
    context.metrics.count_search(result)
    return json_response(result)


async def row(context: Context, request: Request, identity: Identity) -> Response:
    """A document as it is now; one that is gone and one that the caller may not see have the same answer."""
    document_id: str = request.path_params["document_id"]
    call = partial(context.assistant.row, document_id, identity.caller)
    document = await context.run(request, identity, call) if document_id.isprintable() else None
    if document is None:
        raise RequestError(404, "there is no such row, or you may not see it", condition="ROW_UNKNOWN")
    return json_response(document)


async def freshness(context: Context, request: Request, identity: Identity) -> Response:
    """How far the index has come."""
    seen = await context.run(request, identity, context.assistant.freshness)
    context.metrics.see(seen)
    return json_response(seen)


async def watch(context: Context, request: Request, identity: Identity) -> Response:
    """The events of cited documents, until the client leaves, its sign-in ends, or `watch_for` is over."""
    asked = await body_of(request, WatchRequest, context.config.limits)
    versions = {watched.document_id: watched.version for watched in asked.citations}
    if context.watching.documents + len(versions) > MOST_DOCUMENTS:
        raise RequestError(
            503, "too many documents are watched", condition="SERVICE_BUSY", hint="try again in a while", retry_after=5
        )
    give_back = context.watches.take(identity)
    return event_stream(context, request, _watched(context, identity, versions), give_back)


async def _watched(context: Context, identity: Identity, versions: dict[str, str]) -> AsyncGenerator[Any]:
    lasts = context.config.limits.watch_for
    signed_in_for = float("inf") if identity.expires_at is None else identity.expires_at - time.time()
    ends_at = asyncio.get_running_loop().time() + min(lasts, signed_in_for)
    with context.watching.watching(identity.caller, versions) as watcher:
        if context.draining:  # since this request was let in
            watcher.send(None)
        while True:
            try:
                async with asyncio.timeout_at(ends_at):
                    event = await watcher.next()
            except TimeoutError:
                if signed_in_for < lasts:
                    yield sse(
                        "error", answerable(SignInError("the sign-in has expired", condition="TOKEN_EXPIRED")).event
                    )
                return
            if event is None:
                yield sse("error", answerable(stopping()).event)
                return
            yield sse(event.name, event.data)


async def sessions(context: Context, request: Request, identity: Identity) -> Response:
    """The caller's sessions."""
    kept = await context.run(request, identity, partial(context.assistant.sessions, identity.caller))
    return json_response({"sessions": kept})


async def exchanges(context: Context, request: Request, identity: Identity) -> Response:
    """The last exchanges of a session."""
    name: str = request.path_params["name"]
    kept = await context.run(request, identity, partial(context.assistant.exchanges, identity.caller, name))
    shown = [
        {**{key: exchange[key] for key in _OF_EXCHANGE}, "answer": exchange["reply"], "rating": exchange["feedback"]}
        for exchange in kept
    ]
    return json_response({"session": name, "exchanges": shown})


async def delete_session(context: Context, request: Request, identity: Identity) -> Response:
    """Delete a session now."""
    name: str = request.path_params["name"]
    return json_response(
        await context.run(request, identity, partial(context.assistant.delete_session, identity.caller, name))
    )


async def profile(context: Context, request: Request, identity: Identity) -> Response:
    """What is kept of the caller, and the declaration of each field."""
    return json_response(await context.run(request, identity, partial(context.assistant.profile, identity.caller)))


async def put_profile(context: Context, request: Request, identity: Identity) -> Response:
    """Replace the profile of the version that the values were made from."""
    put = await body_of(request, ProfileRequest, context.config.limits)
    call = partial(context.assistant.put_profile, identity.caller, put.values, put.version)
    return json_response(await context.run(request, identity, call))


async def feedback(context: Context, request: Request, identity: Identity) -> Response:
    """Keep what a user thinks of an answer, in place of what was kept before."""
    feedback_request = await body_of(request, FeedbackRequest, context.config.limits)
    call = partial(
        context.assistant.feedback,
        identity.caller,
        feedback_request.session,
        feedback_request.turn,
        feedback_request.rating,
        feedback_request.comment,
    )
    return json_response(await context.run(request, identity, call))


async def me(context: Context, _: Request, identity: Identity) -> Response:
    """The caller, and what this service has."""
    about = {"user": identity.caller.user, "sign_in": identity.sign_in}
    return json_response(about | context.about)

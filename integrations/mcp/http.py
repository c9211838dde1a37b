"""The server for many clients: streamable HTTP at /mcp, beside the probes of `ragstream serve` and behind what guards that.

Each request is of the caller whose key or token it carries. A session is of the caller who opened it: to any other, and to the
same user with other claims, it is not there. Nothing is pushed, so there is no stream to open (GET is refused, as the protocol
allows), and an answer is one JSON object.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.lowlevel.server import request_ctx
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from integrations.mcp.discovery import Discovery, discovery_of
from integrations.mcp.server import AssistantTools, keep_messages_out_of_logs, server_of
from retrieval.conversation.turns import audience_of
from service.assistant import NamedPipeline
from service.callers.protocol import Identity
from service.config import ServeConfig
from service.http.app import guarded
from service.http.bodies import bytes_of
from service.http.context import Context
from service.http.errors import Answerable, RequestError, answerable
from service.http.health import Health
from service.http.routing import IDENTITY, ROUTE, identified, refused
from service.http.server import serve_application

PATH = "/mcp"
MOST_SESSIONS = 1000
MOST_SESSIONS_PER_CALLER = 20
IDLE_SECONDS = 600.0
"""A session ends after so long without a request; its client then opens another one."""


def serve(pipeline: NamedPipeline, config: ServeConfig, listening: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `listening` is called with the address once requests are taken.

    Raises:
        ConfigurationError: the pipeline fills no store, the address is taken, or a certificate cannot be read.
    """
    keep_messages_out_of_logs()

    @asynccontextmanager
    async def opening(context: Context, checks: Health) -> AsyncIterator[ASGIApp]:
        counters = {"search": context.metrics.count_search, "ask": context.metrics.count_answer}
        tools = AssistantTools(
            context.assistant, context.workers, _asking, lambda error: answerable(error).event, counters
        )
        manager = StreamableHTTPSessionManager(
            server_of(pipeline, tools), json_response=True, max_sessions=MOST_SESSIONS, session_idle_timeout=IDLE_SECONDS,
            max_request_body_size=config.limits.body_bytes,
        )  # fmt: skip
        async with manager.run():
            discovery = discovery_of(config, PATH, f"ragstream {pipeline.name}")
            served = Route(PATH, SignedIn(manager.handle_request, context, discovery))
            yield guarded(context, checks, [served, *(discovery.routes() if discovery else ())])

    serve_application(pipeline, config, opening, lambda address: listening(f"{address}{PATH}"))


class SignedIn:
    """Lets requests of callers through to the sessions that are theirs, within the limits of the service."""

    def __init__(self, app: ASGIApp, context: Context, discovery: Discovery | None) -> None:
        self._app = app
        self._context = context
        self._discovery = discovery
        self._sessions = Sessions()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope[ROUTE] = PATH
        request = Request(scope, receive)
        try:
            identity = await identified(self._context, request)
            owner = audience_of(identity.caller)
            self._sessions.require_usable(request, owner)
            body = await bytes_of(request, self._context.config.limits)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered
            await self._refusal(request, answerable(error))(scope, receive, send)
            return
        scope["user"] = AuthenticatedUser(AccessToken(token="", client_id=owner, scopes=[]))  # the manager compares it
        await self._app(scope, _again(body, receive), self._sessions.following(request, owner, send))

    def _refusal(self, request: Request, fault: Answerable) -> Response:
        response = refused(self._context, request.scope, fault)
        if self._discovery is not None and "WWW-Authenticate" in response.headers:
            response.headers["WWW-Authenticate"] = self._discovery.challenge(request, fault)
        return response


class Sessions:
    """How many sessions each caller has open, by what is answered to them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: OrderedDict[str, tuple[str, float]] = OrderedDict()
        """By session, the longest idle first: its owner, and when it was last used."""

    def require_usable(self, request: Request, owner: str) -> None:
        """Raise RequestError for a request that would open a stream, or one session too many."""
        if request.method not in {"POST", "DELETE"}:
            raise RequestError(
                405, "nothing is pushed here", condition="METHOD_NOT_ALLOWED", hint="send messages by POST"
            )
        while self._open and next(iter(self._open.values()))[1] < self._clock() - IDLE_SECONDS:
            self._open.popitem(last=False)
        owned = sum(other == owner for other, _ in self._open.values())
        if MCP_SESSION_ID_HEADER not in request.headers and owned >= MOST_SESSIONS_PER_CALLER:
            raise RequestError(
                429, "too many sessions of this caller at once", condition="TOO_MANY_AT_ONCE",
                hint="end sessions by DELETE, or wait until they have been idle for ten minutes", retry_after=60,
            )  # fmt: skip

    def following(self, request: Request, owner: str, send: Send) -> Send:
        """What sends an answer, and notes what it says of the request's session."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note(request, owner, message["status"], Headers(raw=message["headers"]))
            await send(message)

        return sent

    def _note(self, request: Request, owner: str, status: int, answered: Headers) -> None:
        session = request.headers.get(MCP_SESSION_ID_HEADER) or answered.get(MCP_SESSION_ID_HEADER)
        if session is None:
            return
        if status < 400 and request.method == "POST":
            self._open[session] = owner, self._clock()
            self._open.move_to_end(session)
        elif status == 200:
            self._open.pop(session, None)


def _asking() -> Identity:
    """Who sent the message that is being answered."""
    request = request_ctx.get().request
    assert isinstance(request, Request)  # noqa: S101 - of the transport that this server is behind
    identity: Identity = request.scope[IDENTITY]
    return identity


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that was read, for one who reads it again; then what comes behind it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Message:
        return messages.pop() if messages else await receive()

    return received

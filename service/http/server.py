"""The service as a process: it listens, answers, and ends in good order."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from types import FrameType
from typing import Any

import uvicorn
from starlette.routing import Route
from starlette.types import ASGIApp

from embeddings.budget.report import reports, sections_of
from retrieval.config import ExtractiveConfig
from retrieval.ranking.search import UNKNOWN_FRESHNESS
from schemas.caller import USER, Caller
from schemas.errors import ConfigurationError
from service.assistant import AssistantService, NamedPipeline
from service.callers import open_callers
from service.config import ServeConfig
from service.http.app import application
from service.http.context import Context
from service.http.health import Health
from service.http.limits import Places, Rate
from service.http.metrics import Metrics
from service.http.protocol import timed
from service.http.work import Workers
from service.watching import Watching

logger = logging.getLogger(__name__)

_LAST_WORDS_SECONDS = 2.0
"""For cancelled requests to say so, after `stop_timeout`."""
_MOST_HEADER_BYTES = 65_536
_DESCRIPTORS = 256
"""Of the process, beside those of connections to clients."""
_NOBODY = Caller({USER: "healthz"})
"""Whose sessions are listed to see whether the memory answers: none."""


class _Server(uvicorn.Server):
    """Stops in two steps: no more requests, while those in progress have their time; then uvicorn's own end."""

    def __init__(self, config: uvicorn.Config, context: Context) -> None:
        super().__init__(config)
        self._context = context
        self._stopping: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; at a second signal end at once."""
        if self._context.draining:
            self.should_exit = self.force_exit = True
        self._context.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Begin the stop that a signal asked for, ten times a second."""
        if self._context.draining and self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop())
        return await super().on_tick(counter)

    async def _stop(self) -> None:
        context = self._context
        logger.info(
            "stopping", extra={"context": {"requests": context.workers.places.taken, "watches": context.watches.taken}}
        )
        context.watching.end()
        await self._until_idle(context.config.limits.stop_timeout)
        context.workers.cancel_all()
        await self._until_idle(_LAST_WORDS_SECONDS)
        self.should_exit = True

    async def _until_idle(self, seconds: float) -> None:
        """Wait until no answer is on its way any more, for a time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while tasks := self.server_state.tasks:
                    await asyncio.wait(tasks)


type Opening = Callable[[Context, Health], AbstractAsyncContextManager[ASGIApp]]
"""Opens an application of a service, and closes it when the service ends."""


def serve(pipeline: NamedPipeline, config: ServeConfig, pages: list[Route], listening: Callable[[str], None]) -> None:
    """Serve the API and the pages until SIGTERM or SIGINT; `listening` is called with the address once requests are taken.

    Raises:
        ConfigurationError: the address is taken, or a certificate cannot be read.
    """

    @asynccontextmanager
    async def opening(context: Context, checks: Health) -> AsyncIterator[ASGIApp]:
        yield application(context, checks, pages)

    serve_application(pipeline, config, opening, listening)


def serve_application(
    pipeline: NamedPipeline, config: ServeConfig, opening: Opening, listening: Callable[[str], None]
) -> None:
    """Serve an application of the pipeline's assistant; see `serve`."""
    _allow_descriptors(config.limits.connections + _DESCRIPTORS)
    with _bound(config) as bound:
        asyncio.run(_serve(pipeline, config, opening, bound, listening))


async def _serve(
    pipeline: NamedPipeline,
    config: ServeConfig,
    opening: Opening,
    bound: socket.socket,
    listening: Callable[[str], None],
) -> None:
    asyncio.get_running_loop().set_exception_handler(_log_defect)
    assistant = AssistantService(pipeline, connections=config.connections)
    context = _context(pipeline, config, assistant)
    checks = Health(_parts(pipeline, context))
    certificate = tls(config)
    try:
        async with opening(context, checks) as app:
            await _until_stopped(app, context, bound, certificate, listening)
    finally:
        context.workers.close()
        checks.close()
    if context.workers.places.taken == 0:
        assistant.close()


async def _until_stopped(
    app: ASGIApp, context: Context, bound: socket.socket, certificate: dict[str, Any], listening: Callable[[str], None]
) -> None:
    config = context.config
    settings = uvicorn.Config(
        app,
        http=timed(config.limits.header_timeout, config.limits.connections),
        ws="none", lifespan="off", loop="asyncio", log_config=None, access_log=False, proxy_headers=False,
        server_header=False, h11_max_incomplete_event_size=_MOST_HEADER_BYTES, timeout_graceful_shutdown=1,
        **certificate,
    )  # fmt: skip
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it would log each malformed request
    server = _Server(settings, context)
    watching = asyncio.ensure_future(context.watching.run())
    announced = asyncio.ensure_future(_announce(server, bound, config, listening))
    try:
        await server.serve(sockets=[bound])
    finally:
        for task in (watching, announced):
            task.cancel()
        context.watching.close()


def _log_defect(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody caught, without its text, which may quote a row."""
    error = context.get("exception")
    logger.error("a task failed", exc_info=error, extra={"context": {"kind": type(error).__name__}})


def _context(pipeline: NamedPipeline, config: ServeConfig, assistant: AssistantService) -> Context:
    limits = config.limits
    generation = pipeline.generation
    extractive = generation is None or isinstance(generation, ExtractiveConfig)
    context = Context(
        about={
            "pipeline": pipeline.name,
            "answerer": "extractive" if extractive else "generative",
            "memory": pipeline.memory is not None,
            "tables": list(assistant.access.filterable.tables),
        },
        config=config,
        assistant=assistant,
        callers=open_callers(config.callers),
        watching=Watching(assistant, assistant.access),
        metrics=Metrics(),
        workers=Workers(limits),
        rate=Rate(limits),
        watches=Places(limits.watches, limits.watches_per_caller, "watches"),
    )
    watching = context.watching
    context.metrics.follow(lambda: context.workers.places.taken, lambda: watching.watchers, lambda: watching.documents)
    return context


def _parts(pipeline: NamedPipeline, context: Context) -> dict[str, Callable[[], object]]:
    def store() -> None:
        context.metrics.see(UNKNOWN_FRESHNESS)  # while the store does not answer
        context.metrics.see(context.assistant.freshness())

    def budgets() -> None:
        context.metrics.see_budgets(reports(sections))

    parts: dict[str, Callable[[], object]] = {"store": store}
    sections = sections_of(pipeline)
    if any(getattr(section, "budget", None) for section in sections.values()):
        parts["budgets"] = budgets
    if pipeline.memory is not None:
        parts["memory"] = lambda: context.assistant.sessions(_NOBODY)
    return parts


def _allow_descriptors(wanted: int) -> None:
    """Raise the soft limit of open files, as far as the hard one allows: many systems begin with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )


@contextmanager
def _bound(config: ServeConfig) -> Iterator[socket.socket]:
    """A socket that listens at the configured address."""
    try:
        family = socket.getaddrinfo(config.host.strip("[]"), config.port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.create_server((config.host.strip("[]"), config.port), family=family, backlog=2048)
        # asyncio sets it only on sockets that name their protocol; without it a body waits 40 ms for the head's delayed ACK.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise ConfigurationError(
            f"serve: nothing can listen at {config.host}:{config.port}: {error.strerror}",
            condition="ADDRESS_UNUSABLE",
            hint="set `serve.host` and `serve.port` to an address of this machine that is free",
        ) from None
    with bound:
        yield bound


def tls(config: ServeConfig) -> dict[str, Any]:
    """Uvicorn's settings for TLS, none without a certificate; raises ConfigurationError where that cannot be used."""
    if config.certificate is None:
        return {}
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(config.certificate, config.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"serve: the certificate or its key cannot be used: {getattr(error, 'reason', None) or error.strerror}",
            condition="CERTIFICATE_UNUSABLE",
            hint="`certificate` and `key` name PEM files that belong together",
        ) from None
    return {"ssl_certfile": config.certificate} | ({"ssl_keyfile": config.key} if config.key else {})


async def _announce(
    server: _Server, bound: socket.socket, config: ServeConfig, listening: Callable[[str], None]
) -> None:
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    host = f"[{config.host}]" if ":" in config.host and not config.host.startswith("[") else config.host
    listening(f"{'http' if config.certificate is None else 'https'}://{host}:{bound.getsockname()[1]}")

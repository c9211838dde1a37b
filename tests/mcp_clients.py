"""Sessions of the official MCP client, which run in a thread's event loop."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from mcp import ClientSession, StdioServerParameters, types
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client


class Client:
    """One session; its tools are known."""

    def __init__(self, portal: BlockingPortal, session: ClientSession) -> None:
        self._portal, self._session = portal, session
        self.tools = {tool.name: tool for tool in portal.call(session.list_tools).tools}
        self._requests = 2  # `initialize` was 0, `tools/list` 1

    def start(self, tool: str, **arguments: Any) -> tuple[int, Future[types.CallToolResult]]:
        """Call a tool; returns the request's id and its result to come."""
        self._requests += 1
        return self._requests - 1, self._portal.start_task_soon(self._session.call_tool, tool, arguments)

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """What a tool gives, as structured content and as text alike."""
        return content_of(self.start(tool, **arguments)[1].result(60))

    def refused(self, tool: str, **arguments: Any) -> dict[str, str]:
        """The error of a tool."""
        result = self.start(tool, **arguments)[1].result(60)
        assert result.isError, result
        error: dict[str, str] = _content(result)["error"]
        return error

    def outcome(self, tool: str, **arguments: Any) -> str:
        """The condition of a tool's error; nothing where there is none."""
        result = self.start(tool, **arguments)[1].result(60)
        return str(_content(result)["error"]["condition"]) if result.isError else ""

    def cancel(self, request_id: int) -> None:
        cancelled = types.CancelledNotification(params=types.CancelledNotificationParams(requestId=request_id))
        self._portal.call(self._session.send_notification, types.ClientNotification(cancelled))


def content_of(result: types.CallToolResult) -> dict[str, Any]:
    assert not result.isError, result
    return _content(result)


def _content(result: types.CallToolResult) -> dict[str, Any]:
    (content,) = result.content
    assert isinstance(content, types.TextContent)
    assert result.structuredContent is not None
    assert json.loads(content.text) == result.structuredContent
    return result.structuredContent


@contextmanager
def over_stdio(config: Path, *arguments: str) -> Iterator[Client]:
    """`ragstream mcp CONFIG` as a child whose standard error goes to `mcp.log` beside the configuration."""
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "glue_jobs", "mcp", str(config), *arguments],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    with (
        config.with_name("mcp.log").open("a") as log,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(_stdio_session(parameters, log)) as session,
    ):
        yield Client(portal, session)


@contextmanager
def over_http(url: str, auth: httpx.Auth | None = None, **headers: str) -> Iterator[Client]:
    """A session with a server of `ragstream mcp --http`; `auth` signs the client in where it is refused."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(_http_session(url, headers, auth)) as session,
    ):
        yield Client(portal, session)


@asynccontextmanager
async def _http_session(url: str, headers: dict[str, str], auth: httpx.Auth | None) -> AsyncIterator[ClientSession]:
    async with (
        httpx.AsyncClient(headers=headers, auth=auth, timeout=60) as client,
        streamable_http_client(url, http_client=client) as (incoming, outgoing, _),
        ClientSession(incoming, outgoing) as session,
    ):
        await session.initialize()
        yield session


@asynccontextmanager
async def _stdio_session(parameters: StdioServerParameters, log: Any) -> AsyncIterator[ClientSession]:
    async with stdio_client(parameters, errlog=log) as streams, ClientSession(*streams) as session:
        await session.initialize()
        yield session

"""The server for one client: messages on standard input and output, a line each."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, Self

from mcp.server.stdio import stdio_server

from integrations.mcp.server import AssistantTools, keep_messages_out_of_logs, server_of
from schemas.caller import Caller
from schemas.errors import ConfigurationError, PipelineError
from service.assistant import AssistantService, NamedPipeline
from service.callers.protocol import Identity
from service.config import LimitsConfig
from service.http.work import Workers

logger = logging.getLogger(__name__)

MOST_BYTES = 16 * 1024 * 1024
"""Of a message. What is beyond the limits of a tool's arguments is refused long before, with an answer."""
_CONNECTIONS = 4


def serve(pipeline: NamedPipeline, caller: Caller, limits: LimitsConfig) -> None:
    """Serve the client on standard input until it closes that; everything is asked for the one caller.

    Standard output carries the protocol alone: what anything else prints goes to standard error.

    Raises:
        ConfigurationError: the pipeline fills no store; or the client sent a message of more than `MOST_BYTES`.
    """
    keep_messages_out_of_logs()
    identity = Identity(caller, "none")
    with _protocol_alone() as output:
        asyncio.run(_serve(pipeline, identity, limits, output))


async def _serve(pipeline: NamedPipeline, identity: Identity, limits: LimitsConfig, output: BinaryIO) -> None:
    assistant, workers = AssistantService(pipeline, connections=_CONNECTIONS), Workers(limits)
    server = server_of(pipeline, AssistantTools(assistant, workers, lambda: identity, _error_json))
    lines = Lines(sys.stdin.buffer)
    read: Any = lines
    written: Any = _Output(output)
    try:
        async with stdio_server(read, written) as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())
    except* (BrokenPipeError, ConnectionError):
        logger.info("the client is gone")
    finally:
        workers.close()
        if workers.places.taken == 0:
            assistant.close()
    if lines.failure is not None:
        raise lines.failure


class Lines:
    """The lines of a stream, which a thread reads: one that still waits for a line does not keep the process."""

    def __init__(self, stream: BinaryIO) -> None:
        """Starts to read, in the running loop; at most one line is read ahead."""
        self.failure: ConfigurationError | None = None
        """Why the lines ended before the stream did."""
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[str | None] = asyncio.Queue(1)
        threading.Thread(target=self._read, name="stdin", daemon=True).start()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        """The next line."""
        line = await self._lines.get()
        if line is None:
            raise StopAsyncIteration
        return line

    def _read(self) -> None:
        with suppress(RuntimeError, OSError, ValueError):  # the loop, or the stream, is closed
            while line := self._stream.readline(MOST_BYTES + 1):
                if len(line) > MOST_BYTES:
                    self.failure = ConfigurationError(
                        f"mcp: the client sent a message of more than {MOST_BYTES} bytes", condition="MESSAGE_TOO_LARGE"
                    )
                    break
                self._put(line.decode("utf-8", "replace"))
            self._put(None)

    def _put(self, line: str | None) -> None:
        putting = self._lines.put(line)
        try:
            asyncio.run_coroutine_threadsafe(putting, self._loop).result()
        except RuntimeError:
            putting.close()
            raise


class _Output:
    """A stream of text that is written in a thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    async def write(self, text: str) -> None:
        await asyncio.to_thread(self._stream.write, text.encode())

    async def flush(self) -> None:
        await asyncio.to_thread(self._stream.flush)


@contextmanager
def _protocol_alone() -> Iterator[BinaryIO]:
    """What was standard output, whose place standard error takes."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "wb") as output:
        os.dup2(2, 1)
        yield output


def _error_json(error: Exception) -> dict[str, str]:
    """The JSON object of an error, in full: the client runs on the operator's own machine."""
    if not isinstance(error, PipelineError):
        logger.error("a tool failed on a defect", exc_info=error)
        error = PipelineError(
            "the server failed", condition="DEFECT", hint="its log, on standard error, names the exception"
        )
    return {"condition": error.condition, "message": error.message, "hint": error.hint}

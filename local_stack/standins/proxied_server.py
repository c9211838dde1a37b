"""A proxy process and the server behind it, which end together."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
from collections.abc import Sequence


def options_of(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse `--port P --server-port Q -- COMMAND`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--server-port", type=int, required=True)
    parser.add_argument("command", nargs="+")
    return parser.parse_args(arguments)


def stop_requested() -> asyncio.Event:
    """Return the event that SIGINT or SIGTERM to this process sets."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    return stopped


async def serve_until_end(
    listener: asyncio.Server, server: subprocess.Popen[bytes], stopped: asyncio.Event, stop_signal: signal.Signals
) -> None:
    """Serve until the server ends or a stop is requested, then end both; `stop_signal` is how the server is asked to stop."""
    ended = asyncio.create_task(asyncio.to_thread(server.wait))
    await asyncio.wait([ended, asyncio.create_task(stopped.wait())], return_when=asyncio.FIRST_COMPLETED)
    listener.close()
    server.send_signal(stop_signal)
    await ended
    os._exit(0)  # without waiting for connected clients

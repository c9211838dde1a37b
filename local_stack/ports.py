"""TCP ports: free ones from the operating system, and checks of listeners."""

from __future__ import annotations

import contextlib
import socket

HOST = "127.0.0.1"
"""Every server of the stack listens on the loopback interface only."""


def free_ports(count: int) -> list[int]:
    """Return `count` distinct ports that nothing listens on.

    They are not reserved: a server that finds its port taken exits, and `Service.start` asks for others.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind((HOST, 0))
        return [int(sock.getsockname()[1]) for sock in sockets]


def is_free(port: int) -> bool:
    """Say whether a server could listen on the port now."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, port))
        except OSError:
            return False
        return True


def accepts(port: int) -> bool:
    """Say whether something accepts connections on the port."""
    try:
        with socket.create_connection((HOST, port), timeout=0.2):
            return True
    except OSError:
        return False

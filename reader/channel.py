"""Authenticated TCP between tasks and readers: `multiprocessing.connection`, with a deadline for every wait.

Both sides prove that they know the secret before anything is unpickled. An address is `host:port`.
"""

from __future__ import annotations

import socket
import struct
from contextlib import closing
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Any

AUTHENTICATION_SECONDS = 5.0
"""How long a connected peer may stay silent before it is closed."""
CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 15.0
"""How long an answer may take: a reader answers at once, unless cores are overloaded; a second reader would load them more."""


def listen(host: str) -> socket.socket:
    """Listen at a free port of an address."""
    return socket.create_server((host, 0), backlog=64)


def address_of(listening: socket.socket) -> str:
    """The address under which a listening socket is reached."""
    host, port = listening.getsockname()[:2]
    return f"{host}:{port}"


def own_address() -> str:
    """The address of this machine's default route, by which others of its network reach it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737): chooses a route, sends nothing
        except OSError:  # no default route: this machine has no others
            return "127.0.0.1"
        host, _ = probe.getsockname()
        return str(host)


def authenticated(accepted: socket.socket, secret: bytes) -> Connection:
    """The connection of a peer that knows the secret; closed otherwise.

    Raises AuthenticationError, EOFError or OSError for a peer that does not, or that is silent for AUTHENTICATION_SECONDS.
    """
    connection = _connection(accepted, AUTHENTICATION_SECONDS)
    try:
        deliver_challenge(connection, secret)
        answer_challenge(connection, secret)
    except BaseException:
        connection.close()
        raise
    return connection


def ask(address: str, secret: bytes, message: object, seconds: float = ANSWER_SECONDS) -> Any:
    """Send a message to a reader, and return its answer.

    Raises OSError (also when it takes longer), EOFError, or AuthenticationError where another process listens.
    """
    host, _, port = address.rpartition(":")
    connected = socket.create_connection((host, int(port)), timeout=min(CONNECT_SECONDS, seconds))
    with closing(_connection(connected, seconds)) as connection:
        answer_challenge(connection, secret)
        deliver_challenge(connection, secret)
        connection.send(message)
        return connection.recv()


def _connection(connected: socket.socket, seconds: float) -> Connection:
    """Take a socket over; the kernel bounds each wait, since a Connection has no timeout."""
    connected.setblocking(True)  # noqa: FBT003 - the socket API's own
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    bound = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connected.setsockopt(socket.SOL_SOCKET, option, bound)
    return Connection(connected.detach())

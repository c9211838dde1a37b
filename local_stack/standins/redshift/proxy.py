"""A proxy that lets PostgreSQL pass for Redshift.

    python -m local_stack.standins.redshift.proxy --port P --server-port Q -- COMMAND

It runs the server COMMAND, reports version 8.0.2, drops start-up parameters that only Redshift knows, and turns COPY of
Parquet from S3 into COPY FROM STDIN in the same transaction. S3 is what boto3's own environment variables name.
Message formats: PostgreSQL documentation, "Frontend/Backend Protocol".
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from local_stack.ports import HOST
from local_stack.standins.proxied_server import options_of, serve_until_end, stop_requested
from local_stack.standins.redshift.dialect import PRELUDE, DialectError, S3Copy, copy_of, data_of, in_postgresql

_VERSION = b"8.0.2"
_PARAMETERS = {b"user", b"database", b"application_name", b"client_encoding"}
_CANCEL, _SSL, _GSS = 80877102, 80877103, 80877104
_LENGTH = struct.Struct("!i")


class _Session:
    """One client's connection, both directions."""

    def __init__(self, s3: Any, server: asyncio.StreamWriter) -> None:
        self._s3 = s3
        self._server = server
        self._prepared: dict[bytes, S3Copy] = {}
        self._portals: dict[bytes, bytes] = {}
        self._pending: asyncio.Future[None] | None = None
        self._data: list[bytes] | DialectError = []

    async def from_client(self, reader: asyncio.StreamReader) -> None:
        """Forward a client's messages; after one that starts a COPY, wait until its data is sent."""
        while message := await _message(reader):
            kind, body = message
            copy = self._rewritten(kind, body)
            if isinstance(copy, bytes):
                body, copy = copy, None
            elif copy is not None:
                body = body if kind != b"Q" else copy.statement.encode() + b"\0"
                await self._fetch(copy)
            self._server.write(kind + _LENGTH.pack(len(body) + 4) + body)
            await self._server.drain()
            if self._pending:
                await self._pending
                self._pending = None

    def _rewritten(self, kind: bytes, body: bytes) -> S3Copy | bytes | None:
        """The COPY that a message starts, or the message's body rewritten for PostgreSQL."""
        if kind == b"Q":
            query = body[:-1].decode()
            return _copy(query) or in_postgresql(query).encode() + b"\0"
        if kind == b"P":
            name, statement, rest = body.split(b"\0", 2)
            copy = _copy(statement.decode())
            self._prepared.pop(name, None)
            if copy:
                self._prepared[name] = copy
            rewritten = copy.statement if copy else in_postgresql(statement.decode())
            return name + b"\0" + rewritten.encode() + b"\0" + rest
        if kind == b"B":
            portal, name, _ = body.split(b"\0", 2)
            self._portals[portal] = name
        if kind == b"E":
            return self._prepared.get(self._portals.get(body.split(b"\0", 1)[0], b""))
        return None

    async def _fetch(self, copy: S3Copy) -> None:
        try:
            self._data = await asyncio.to_thread(lambda: list(data_of(self._s3, copy)))
        except DialectError as error:
            self._data = error
        self._pending = asyncio.get_running_loop().create_future()

    async def to_client(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Forward the server's messages, except its readiness for a COPY's data, which is answered here."""
        while message := await _message(reader):
            kind, body = message
            if kind == b"G" and self._pending:
                self._send_data()
                continue
            if kind == b"S" and body.startswith(b"server_version\0"):
                body = b"server_version\0" + _VERSION + b"\0"
            if kind == b"E":
                self._release()
            client.write(kind + _LENGTH.pack(len(body) + 4) + body)
            await client.drain()

    def _send_data(self) -> None:
        if isinstance(self._data, DialectError):
            message = str(self._data).encode() + b"\0"
            self._server.write(b"f" + _LENGTH.pack(len(message) + 4) + message)
        else:
            for chunk in self._data:
                self._server.write(b"d" + _LENGTH.pack(len(chunk) + 4) + chunk)
            self._server.write(b"c" + _LENGTH.pack(4))
        self._release()

    def _release(self) -> None:
        if self._pending and not self._pending.done():
            self._pending.set_result(None)


def _copy(statement: str) -> S3Copy | None:
    try:
        return copy_of(statement)
    except DialectError:
        return None  # PostgreSQL refuses it too


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes] | None:
    with contextlib.suppress(asyncio.IncompleteReadError):
        kind = await reader.readexactly(1)
        (length,) = _LENGTH.unpack(await reader.readexactly(4))
        return kind, await reader.readexactly(length - 4)
    return None


async def _startup(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
    """The start-up packet for the server; encryption is refused, as the server is on this machine."""
    while True:
        (length,) = _LENGTH.unpack(await reader.readexactly(4))
        body = await reader.readexactly(length - 4)
        (code,) = _LENGTH.unpack(body[:4])
        if code in {_SSL, _GSS}:
            writer.write(b"N")
            await writer.drain()
            continue
        if code == _CANCEL:
            return _LENGTH.pack(length) + body
        named = body[4:].rstrip(b"\0").split(b"\0")
        kept = [part for at in range(0, len(named) - 1, 2) if named[at] in _PARAMETERS for part in named[at : at + 2]]
        packet = body[:4] + b"\0".join(kept) + b"\0\0"
        return _LENGTH.pack(len(packet) + 4) + packet


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server_port: int, s3: Any) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        packet = await _startup(reader, writer)
        server_reader, server_writer = await asyncio.open_connection(HOST, server_port)
        server_writer.write(packet or b"")
        session = _Session(s3, server_writer)
        ways = [
            asyncio.create_task(session.from_client(reader)),
            asyncio.create_task(session.to_client(server_reader, writer)),
        ]
        _, waiting = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in waiting:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        server_writer.close()
    writer.close()


def _prepare(server_port: int, server: subprocess.Popen[bytes]) -> None:
    """Wait for the server, and create Redshift's types and functions in the template of every database."""
    import psycopg

    while server.poll() is None:
        try:
            for database in ("template1", "postgres"):
                dsn = f"host={HOST} port={server_port} user=postgres dbname={database} connect_timeout=2"
                with psycopg.connect(dsn, autocommit=True) as connection:
                    connection.execute(PRELUDE.encode())
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    sys.exit(1)


async def _run(port: int, server_port: int, server: subprocess.Popen[bytes]) -> None:
    import boto3

    s3 = boto3.client("s3")
    stopped = stop_requested()
    listener = await asyncio.start_server(lambda r, w: _serve(r, w, server_port, s3), HOST, port)
    await serve_until_end(listener, server, stopped, signal.SIGINT)


def main(arguments: Sequence[str]) -> None:
    """Run the server and the proxy until either is ended."""
    options = options_of(arguments)
    server = subprocess.Popen(options.command)
    _prepare(options.server_port, server)
    asyncio.run(_run(options.port, options.server_port, server))


if __name__ == "__main__":
    main(sys.argv[1:])

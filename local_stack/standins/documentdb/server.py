"""A stand-in for DocumentDB: a small MongoDB server from Maven behind a proxy of ours that speaks DocumentDB's dialect.

It proves the shape of our requests against DocumentDB's documentation, and what our writers and readers make of the
answers: guards, retries, joins. It does not prove DocumentDB's own indexes (recall of HNSW, plans, limits of index keys),
its transactions, TLS and users, its failover, or its speed: vectors are searched exactly, other indexes are not used.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from local_stack import cache
from local_stack.ports import HOST
from local_stack.service import PYTHON_ENVIRONMENT, Endpoint, Service, program

_JAVA = ("-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")


class DocumentDB(Service):
    """One instance. What it acknowledged is there again after `kill` and `start`."""

    part = "documentdb"
    port_names = ("client", "server")

    @property
    def endpoint(self) -> Endpoint:
        """`uri`, without TLS and without a user."""
        return {"uri": f"mongodb://{HOST}:{self.port}/?retryWrites=false"}

    def command(self) -> list[str]:
        """Run the proxy, which runs the server."""
        source = Path(__file__).with_name("DocumentDbServer.java")
        jars = os.pathsep.join(map(str, cache.documentdb_jars()))
        java = program("java", "Install Java 17.")
        proxy = [sys.executable, "-m", "local_stack.standins.documentdb.proxy", "--port", str(self.port)]
        server = [java, *_JAVA, "-cp", jars, str(source), str(self.port_of("server")), str(self.directory / "data")]
        return [*proxy, "--server-port", str(self.port_of("server")), "--", *server]

    def environment(self) -> dict[str, str]:
        """Let the proxy import this package."""
        return PYTHON_ENVIRONMENT

    def handshake(self) -> None:
        """Ping the server behind the proxy."""
        with self.client(timeout=2) as client:
            client.admin.command("ping")

    def client(self, timeout: float = 30) -> MongoClient[dict[str, Any]]:
        """Return a client of its own kind; the timeout of a command is in seconds."""
        milliseconds = int(timeout * 1000)
        return MongoClient(
            self.endpoint["uri"], serverSelectionTimeoutMS=milliseconds, socketTimeoutMS=milliseconds, retryReads=False
        )

    def fail(self, *commands: str, times: int | None = None, **fault: Any) -> None:
        """Make commands fail (`errorCode`, `closeConnection`, `blockTimeMS`; `failItem` of a bulk); none ends it."""
        mode = "off" if not commands else "alwaysOn" if times is None else {"times": times}
        data = {"failCommands": list(commands), **fault}
        with self.client() as client:
            client.admin.command({"configureFailPoint": "failCommand", "mode": mode, "data": data})

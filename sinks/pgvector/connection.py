"""A connection to PostgreSQL, which detects a server that accepts statements and answers none."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors
from psycopg.conninfo import make_conninfo
from psycopg.waiting import Ready

from schemas.errors import ConfigurationError, PipelineError, UnavailableError

if TYPE_CHECKING:
    from psycopg.abc import PQGen

    from sinks.pgvector.config import PgvectorConfig

_INTERVAL_SECONDS = 0.1
"""psycopg's default: how often a wait checks for signals."""
MOST_SECONDS = 300
"""The longest transaction of a write. A session counts as idle only after a Sync, which a pipeline sends at its end, so
`idle_in_transaction_session_timeout` does not end a writer that was frozen within a pipeline, and its rows stay locked."""
_HAS_TRANSACTION_TIMEOUT = 170_000
# Without these, rows of a writer whose host vanished stay locked until TCP gives up, by default after two hours.
_END_STALLED = """SET idle_in_transaction_session_timeout = '5min'; SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 5;
SET tcp_keepalives_count = 3"""

# psycopg logs errors that it suppresses, with their messages, which may quote a row.
logging.getLogger("psycopg").setLevel(logging.CRITICAL)


_UNVERIFIED = re.compile(r"certificate verify failed|server certificate for|does not support SSL|root certificate file")
"""libpq's messages for a server whose identity it cannot verify."""


def connection_error(config: PgvectorConfig, error: psycopg.Error) -> PipelineError:
    """The error for a connection that failed: a ConfigurationError if a retry cannot help; without the driver's text (I14)."""
    if _UNVERIFIED.search(str(error)):
        return config.unverified()
    refused = (errors.InvalidPassword, errors.InvalidAuthorizationSpecification, errors.InvalidCatalogName)
    return (ConfigurationError if isinstance(error, refused) else UnavailableError)(
        f"sink {config.name}: PostgreSQL does not answer ({error.sqlstate or type(error).__name__})",
        hint=f"check the dsn of sink {config.name}, the server and the network route to it",
    )


class Attentive(psycopg.Connection[Any]):
    """A connection that fails if its server is silent for `patience` seconds, and then refuses a second connection too.

    TCP keepalive is not enough: the kernel of a frozen server goes on acknowledging. A server that accepts the second
    connection is slow, and is waited for as long again. It goes to the same address, as a failover may move the name.
    """

    conninfo = ""
    patience = float("inf")
    connect_seconds = 5

    def wait[T](self, gen: PQGen[T], interval: float = _INTERVAL_SECONDS, timeout: float | None = None) -> T:
        """Wait for an answer; raise OperationalError, and close the connection, if there is none."""
        return super().wait(self._attended(gen), interval, timeout)

    def _attended[T](self, gen: PQGen[T]) -> PQGen[T]:
        heard_at = time.monotonic()
        try:
            awaited = next(gen)
            while True:
                ready = yield awaited
                if ready:
                    heard_at = time.monotonic()
                elif time.monotonic() - heard_at > self.patience:
                    self._confirm_answers()
                    heard_at = time.monotonic()
                awaited = gen.send(Ready(ready))
        except StopIteration as end:
            result: T = end.value
            return result

    def _confirm_answers(self) -> None:
        server: dict[str, str | int] = {"host": self.info.host, "hostaddr": self.info.hostaddr, "port": self.info.port}
        same = make_conninfo(self.conninfo, **{name: value for name, value in server.items() if value})
        try:
            psycopg.connect(same, connect_timeout=self.connect_seconds).close()
        except psycopg.OperationalError:
            self.pgconn.finish()
            raise


def connect(config: PgvectorConfig, name: str = "ragstream") -> Attentive:
    """Connect as a writer or a reader of this store, under that name; raises psycopg's errors."""
    connection = Attentive.connect(
        config.conninfo, autocommit=True, connect_timeout=config.connect_timeout_seconds, application_name=name,
        keepalives_idle=5, keepalives_interval=5, keepalives_count=3, tcp_user_timeout=20_000,
    )  # fmt: skip
    connection.conninfo, connection.patience = config.conninfo, config.deadline
    connection.connect_seconds = config.connect_timeout_seconds
    connection.execute(_END_STALLED)
    return connection


def begin(connection: psycopg.Connection[Any]) -> None:
    """Begin a transaction within a pipeline; PostgreSQL 17 and later ends it after `MOST_SECONDS`."""
    connection.execute("BEGIN")
    limit_time(connection)


def limit_time(connection: psycopg.Connection[Any]) -> None:
    """Have PostgreSQL 17 and later end this transaction after `MOST_SECONDS`."""
    if connection.info.server_version >= _HAS_TRANSACTION_TIMEOUT:
        connection.execute(f"SET LOCAL transaction_timeout = {MOST_SECONDS * 1000}")

"""A writer's connection to PostgreSQL, which notices a server that accepts statements and answers none."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.waiting import Ready

if TYPE_CHECKING:
    from psycopg.abc import PQGen

    from sinks.pgvector.config import PgvectorConfig

_INTERVAL_SECONDS = 0.1
"""psycopg's own default: how often a wait looks up."""
MOST_SECONDS = 300
"""How long a write's transaction may take. It is idle to the server only behind a Sync, which a pipeline sends at its end: so
`idle_in_transaction_session_timeout` does not see a writer that was frozen in the middle of one, and its rows stay locked."""
_HAS_TRANSACTION_TIMEOUT = 170_000
# A writer whose host vanished would keep its rows locked until the server's TCP gives up, by default in two hours.
_LETS_GO = """SET idle_in_transaction_session_timeout = '5min'; SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 5;
SET tcp_keepalives_count = 3"""

# psycopg tells errors that it puts aside for an earlier one, with their messages, which may quote a row.
logging.getLogger("psycopg").setLevel(logging.CRITICAL)


_UNVERIFIED = re.compile(r"certificate verify failed|server certificate for|does not support SSL|root certificate file")
"""libpq's words for a server that it does not take for the one that it was to reach."""


def is_unverified(error: psycopg.Error) -> bool:
    """Whether a connection failed because the server could not be verified, which waiting does not mend."""
    return _UNVERIFIED.search(str(error)) is not None


class Attentive(psycopg.Connection[Any]):
    """A connection that fails when its server says nothing for `patience` seconds, to a second connection neither.

    TCP does not tell: the kernel of a frozen server goes on acknowledging. A server that lets a second connection in is slow,
    and is waited for as long again. The second one goes to the same address: after a failover the name leads to another server.
    """

    conninfo = ""
    patience = float("inf")
    connect_seconds = 5

    def wait[T](self, gen: PQGen[T], interval: float = _INTERVAL_SECONDS, timeout: float | None = None) -> T:
        """Wait for an answer; raises OperationalError, with the connection closed, when there is none."""
        return super().wait(self._attended(gen), interval, timeout)

    def _attended[T](self, gen: PQGen[T]) -> PQGen[T]:
        heard_at = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    heard_at = time.monotonic()
                elif time.monotonic() - heard_at > self.patience:
                    self._confirm_answers()
                    heard_at = time.monotonic()
                wanted = gen.send(Ready(ready))
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


def connect(config: PgvectorConfig) -> Attentive:
    """Connect as a writer of this store; raises psycopg's errors."""
    connection = Attentive.connect(
        config.conninfo, autocommit=True, connect_timeout=config.connect_timeout_seconds, application_name="ragstream",
        keepalives_idle=5, keepalives_interval=5, keepalives_count=3, tcp_user_timeout=20_000,
    )  # fmt: skip
    connection.conninfo, connection.patience = config.conninfo, config.deadline
    connection.connect_seconds = config.connect_timeout_seconds
    connection.execute(_LETS_GO)
    return connection


def begin(connection: psycopg.Connection[Any]) -> None:
    """Begin a transaction in a pipeline; PostgreSQL 17 and later ends it when its writer stands still in the middle."""
    connection.execute("BEGIN")
    if connection.info.server_version >= _HAS_TRANSACTION_TIMEOUT:
        connection.execute(f"SET LOCAL transaction_timeout = {MOST_SECONDS * 1000}")

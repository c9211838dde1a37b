"""What MySQL and MariaDB have in common: a binary log that is read as a replica reads it, and whose tables are in databases."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import ClassVar

from schemas.errors import ConfigurationError
from schemas.transport import is_this_machine
from sources.capture.engines.history import history_settings
from sources.capture.engines.protocol import Connector, Statements, weak_uri
from sources.capture.target import Database, Scheme, Table, database_at, listed_pattern, literal

SSL_MODES = ("DISABLED", "PREFERRED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY")
"""Of the URI's `ssl-mode`, as MySQL's own clients name them, the weakest first."""
_OWN_IDS = 1_000_000
"""Smaller numbers are left to the servers themselves."""
_SETTINGS = {
    # Times of more than a day, and before midnight, are microseconds whatever the column's precision.
    "time.precision.mode": "adaptive_time_microseconds",
    # In 64 signed bits the upper half of a BIGINT UNSIGNED is negative.
    "bigint.unsigned.handling.mode": "precise",
    # By default a date of the years 0 to 99 becomes one of 1970 to 2069.
    "enable.time.adjuster": "false",
    "event.processing.failure.handling.mode": "fail",
    "inconsistent.schema.handling.mode": "fail",
}


class Binlog:
    """A server whose binary log is read as a replica reads it."""

    scheme: Scheme
    connector_class: ClassVar[str]
    ssl_modes: ClassVar[Mapping[str, str]]
    """The connector's names of `SSL_MODES`."""
    poll_interval_ms = 10

    def weaknesses(self, dsn: str) -> Iterator[str]:
        """Any `ssl-mode` but the one that verifies the host's name; left out, it is that one beyond this machine."""
        verified = SSL_MODES[-1]
        mend = f"say ssl-mode={verified}, or leave it out"
        return weak_uri(self, dsn, lambda address: address.options.get("ssl-mode", verified) != verified, mend)

    def address(self, dsn: str) -> Database:
        """Read a URI; it may leave the database out, since tables are named with theirs."""
        address = database_at(dsn, self.scheme, names_database=False)
        if address.options.get("ssl-mode", SSL_MODES[0]) not in SSL_MODES:
            raise ConfigurationError(
                "`capture.dsn` has an ssl-mode that is none.",
                condition="CAPTURE_DSN",
                hint=f"Say one of {', '.join(SSL_MODES)}.",
            )
        return address

    def listed(self, table: Table) -> str:
        """`database.table`."""
        return f"{table.schema}.{table.name}"

    def settings(self, connector: Connector) -> Mapping[str, str]:
        """The replica that the connector is to the server, its history of tables, and what the log's values are sent as."""
        capture, databases = connector.capture, dict.fromkeys(table.schema for table in connector.tables)
        settings = {
            "connector.class": self.connector_class,
            "database.server.id": str(capture.server_id or _replica(connector.name)),
            "database.include.list": ",".join(map(listed_pattern, databases)),
        }
        if mode := ssl_mode(connector.database, allow_plaintext=capture.allow_plaintext):
            settings["database.ssl.mode"] = self.ssl_modes[mode]
        if capture.signals_by_topic_alone:
            settings["read.only"] = "true"  # windows of an incremental snapshot by GTIDs
        if connector.heartbeat:
            settings["heartbeat.action.query"] = (
                f"INSERT INTO {quoted(connector.heartbeat)} (id, beat) VALUES (1, now()) ON DUPLICATE KEY UPDATE beat = now()"
            )
        return _SETTINGS | settings | history_settings(connector)

    def statements(self, connector: Connector) -> Statements:
        """The signal and heartbeat tables; and the rights of the connector's user, for the administrator."""
        own = connector.own_tables(
            "id varchar(42) PRIMARY KEY, type varchar(32) NOT NULL, data text",
            "id int PRIMARY KEY, beat timestamp NOT NULL",
        )
        source = [f"CREATE TABLE IF NOT EXISTS {quoted(table)} ({columns})" for table, columns in own]
        return Statements(source, administrator=_grants(connector))


def _grants(connector: Connector) -> list[str]:
    """The rights that the connector's user needs; of its own tables also those to write."""
    user = f"{literal(connector.database.user)}@'%'"
    databases = dict.fromkeys(table.schema for table in connector.tables)
    own = filter(None, (connector.signals, connector.heartbeat))
    return [
        f"GRANT REPLICATION SLAVE, REPLICATION CLIENT, RELOAD, SHOW DATABASES ON *.* TO {user}",
        *(f"GRANT SELECT, LOCK TABLES ON {quoted_name(name)}.* TO {user}" for name in databases),
        *(f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON {quoted(table)} TO {user}" for table in own),
    ]


def ssl_mode(address: Database, *, allow_plaintext: bool) -> str | None:
    """The `ssl-mode` of a connection; None leaves it to the client, on this machine and where plain text is allowed."""
    stated = address.options.get("ssl-mode")
    return stated or (None if allow_plaintext or is_this_machine(address.host) else SSL_MODES[-1])


def quoted_name(name: str) -> str:
    """Quote an identifier as MySQL and MariaDB do in every SQL mode."""
    return "`" + name.replace("`", "``") + "`"


def quoted(table: Table) -> str:
    """A table as MySQL and MariaDB name it."""
    return f"{quoted_name(table.schema)}.{quoted_name(table.name)}"


def _replica(name: str) -> int:
    """A number that no other replica of the server is likely to have: of two with one number the server drops one."""
    return _OWN_IDS + zlib.crc32(name.encode()) % (2**31 - _OWN_IDS)

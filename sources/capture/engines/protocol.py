"""What the rendering of a capture needs to know of one kind of database. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from schemas.errors import ConfigurationError
from schemas.transport import is_this_machine, weakness
from sources.capture.target import Database, Scheme, Table, tables_named

if TYPE_CHECKING:
    from sources.capture.debezium import DebeziumCaptureConfig
    from sources.registry.config import RegistryConfig


@dataclass(frozen=True, slots=True)
class Connector:
    """A Debezium connector to be rendered."""

    capture: DebeziumCaptureConfig
    name: str
    topic_prefix: str
    tables: Sequence[Table]
    database: Database
    registry: RegistryConfig | None = None
    """Of the source that it feeds."""
    keys: Mapping[Table, Sequence[str]] = field(default_factory=dict)
    """Columns that are the key of a table's records in place of its primary key."""
    also: Sequence[Table] = ()
    """Other names of these tables: one that is renamed goes on without a gap where the connector knows its new name before."""

    @property
    def signals(self) -> Table | None:
        """The table for signals."""
        return _table(self.capture.signal_table)

    @property
    def heartbeat(self) -> Table | None:
        """The table that the heartbeat writes to."""
        return _table(self.capture.heartbeat_table)

    def own_tables(self, signal_columns: str, heartbeat_columns: str) -> Iterator[tuple[Table, str]]:
        """The tables for signals and the heartbeat that are configured, with their columns."""
        for table, columns in ((self.signals, signal_columns), (self.heartbeat, heartbeat_columns)):
            if table:
                yield table, columns


def weak_uri(
    engine: Engine, dsn: str, is_weak: Callable[[Database], bool], mend: str, *, path: str = "DATABASE"
) -> Iterator[str]:
    """The weakness of a URI that is none of the engine's, or reaches another machine in a way that is weak."""
    try:
        address = engine.address(dsn)
    except ConfigurationError:
        yield weakness("dsn", f"write it as {engine.scheme.names[0]}://USER:PASSWORD@HOST:PORT/{path}")
        return
    if not is_this_machine(address.host) and is_weak(address):
        yield weakness("dsn", mend)


def _table(name: str | None) -> Table | None:
    return tables_named([name])[0] if name else None


@dataclass(frozen=True, slots=True)
class Statements:
    """SQL for people, beside a connector; running any of it again changes nothing, or is refused."""

    source: Sequence[str] = ()
    """For the owner of the tables, once before the connector starts; `--apply` runs it where there is a client."""
    administrator: Sequence[str] = ()
    """For the server's administrator; nothing here runs it."""
    check: Sequence[str] = ()
    """Queries for an engine whose client is not here: each row that one returns is something wrong, in words."""


class Engine(Protocol):
    """A kind of database; the name under which `ENGINES` has it is that of the configuration, and of Debezium's connector."""

    scheme: Scheme
    poll_interval_ms: int
    """How long the connector waits before it asks the database again, unless the configuration says so."""

    def weaknesses(self, dsn: str) -> Iterator[str]:
        """Sentences on a URI that reaches another machine unencrypted or unverified."""
        ...

    def address(self, dsn: str) -> Database:
        """Read a URI; raises ConfigurationError, without the URI, when it is none of this engine's."""
        ...

    def listed(self, table: Table) -> str:
        """A table's name as the connector's list of tables has it."""
        ...

    def settings(self, connector: Connector) -> Mapping[str, str]:
        """The connector's settings that are this engine's own."""
        ...

    def statements(self, connector: Connector) -> Statements:
        """What the database needs before the connector starts."""
        ...

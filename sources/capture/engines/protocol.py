"""What the rendering of a capture needs to know of one kind of database. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sources.capture.target import Database, Scheme, Table

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

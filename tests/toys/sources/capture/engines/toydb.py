"""A toy database, which no client asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sources.capture.engines.protocol import Connector, Statements
from sources.capture.target import Database, Scheme, Table, database_at


class ToyDB:
    """A database of toys."""

    scheme = Scheme("ToyDB", ("toydb",), 1)
    poll_interval_ms = 10

    def weaknesses(self, dsn: str) -> Iterator[str]:
        """None of an address of toys."""
        if not dsn.startswith("toydb://"):
            yield "a toy lives at toydb://"

    def address(self, dsn: str) -> Database:
        """Read a URI."""
        return database_at(dsn, self.scheme)

    def listed(self, table: Table) -> str:
        """`schema.table`."""
        return f"{table.schema}.{table.name}"

    def settings(self, connector: Connector) -> Mapping[str, str]:
        """Its connector."""
        return {"connector.class": "io.toydb.Connector", "toy.name": connector.name}

    def statements(self, connector: Connector) -> Statements:
        """One for the owner of the toys."""
        return Statements([f"-- {connector.name}"])

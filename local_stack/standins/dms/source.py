"""What a task needs of a database, whichever it is: its tables, their rows, and what its log has beyond a place."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

type Row = dict[str, Any]
"""Column to value, as its engine tells it; a column that the log leaves out is not there."""
type Described = Mapping[str, Any]
"""A column as a control record describes it: `type` in DMS's names, `nullable`, and what more its type has."""


@dataclass(frozen=True, slots=True)
class TableDefinition:
    """A table: its columns, and its primary key."""

    schema: str
    """Of MariaDB its database."""
    table: str
    columns: Mapping[str, Described]
    keys: tuple[str, ...]

    @property
    def name(self) -> str:
        """`schema.table`."""
        return f"{self.schema}.{self.table}"


class Change(NamedTuple):
    """One row of a committed transaction."""

    table: str
    """`schema.table`."""
    operation: str
    """`insert`, `update` or `delete`."""
    columns: tuple[str, ...]
    """All that the table has, by the log."""
    row: Row
    """The new row; of a delete the old one, as far as the log has it."""
    old: Row
    """Of an update the old values, as far as the log has them."""
    transaction: int
    number: int
    """In its transaction, from 1."""
    committed_at: dt.datetime
    position: str
    """`stream-position`."""


type Send = Callable[[Iterator[Change]], None]
"""Returns once all are in the stream."""


class Session(Protocol):
    """A connection to a database whose log is kept from a place on."""

    def names(self) -> Sequence[str]:
        """Name the tables to capture."""

    def table(self, name: str) -> TableDefinition:
        """Read a table's definition, as it is now."""

    def value(self, value: Any, described: Described) -> Any:
        """Make one of its values what DMS writes into JSON."""

    def is_loaded(self) -> bool:
        """Whether a load has ended before, and its log is still kept from there on."""

    def begin_load(self) -> None:
        """Note the log's place: what is committed from here on comes from it."""

    def rows(self, table: TableDefinition) -> Iterator[Row]:
        """Every row."""

    def end_load(self) -> None:
        """Note that all rows are in the stream."""

    def follow(self, send: Send) -> bool:
        """Send what the log has, and move on only when all of it is sent; returns whether it had anything."""


class Database(Protocol):
    """Where a task reads."""

    def session(self) -> AbstractContextManager[Session]:
        """Connect."""

    def is_away(self, error: Exception) -> bool:
        """Whether an error says that it does not answer, so that a task waits for it."""

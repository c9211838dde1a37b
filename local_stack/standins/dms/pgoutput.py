"""PostgreSQL's logical replication messages (protocol version 1, plug-in pgoutput), as far as a capture needs them.

Source: PostgreSQL documentation, "Logical Replication Message Formats".
"""

from __future__ import annotations

import datetime as dt
import struct
from dataclasses import dataclass

_EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)


class Unchanged:
    """The value of a large column that an update did not change: the log leaves it out."""


UNCHANGED = Unchanged()
type Column = str | Unchanged | None
type Row = dict[str, Column]


@dataclass(frozen=True, slots=True)
class Relation:
    """A table as the log names it."""

    schema: str
    table: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Begin:
    """A transaction: where its commit stands, when it was, and its number."""

    commit_lsn: int
    committed_at: dt.datetime
    transaction: int


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row: operation I, U or D; `old` holds the old key (or row) where the log has it."""

    operation: str
    relation: Relation
    new: Row | None
    old: Row | None
    is_old_complete: bool = False
    """Whether `old` is the whole row (replica identity FULL)."""


@dataclass(frozen=True, slots=True)
class Truncate:
    """Tables that were emptied."""

    relations: tuple[Relation, ...]


type Message = Begin | RowChange | Truncate | None


class Decoder:
    """Decodes messages in the log's order, with the relations of earlier messages."""

    def __init__(self) -> None:
        """Begin without relations."""
        self._relations: dict[int, Relation] = {}

    def decode(self, data: bytes) -> Message:
        """Read one message; None for those without rows (commit, origin, type)."""
        kind, reader = chr(data[0]), _Reader(data, 1)
        if kind == "R":
            self._store_relation(reader)
        elif kind == "B":
            lsn, micros, transaction = reader.take("!QqI")
            return Begin(lsn, _EPOCH + dt.timedelta(microseconds=micros), transaction)
        elif kind in "IUD":
            return self._row_change(kind, reader)
        elif kind == "T":
            count, _ = reader.take("!IB")
            return Truncate(tuple(self._relations[reader.take("!I")[0]] for _ in range(count)))
        return None

    def _store_relation(self, reader: _Reader) -> None:
        (oid,) = reader.take("!I")
        schema, table = reader.text(), reader.text()
        _, count = reader.take("!BH")
        columns = []
        for _ in range(count):
            reader.take("!B")
            columns.append(reader.text())
            reader.take("!Ii")
        self._relations[oid] = Relation(schema or "pg_catalog", table, tuple(columns))

    def _row_change(self, kind: str, reader: _Reader) -> RowChange:
        relation = self._relations[reader.take("!I")[0]]
        rows: dict[str, Row] = {}
        while not reader.ended:
            part = chr(reader.take("!B")[0])
            rows[part] = reader.row(relation.columns)
        return RowChange(kind, relation, rows.get("N"), rows.get("K") or rows.get("O"), "O" in rows)


class _Reader:
    def __init__(self, data: bytes, position: int) -> None:
        self._data, self._position = data, position

    @property
    def ended(self) -> bool:
        return self._position >= len(self._data)

    def take(self, form: str) -> tuple[int, ...]:
        values = struct.unpack_from(form, self._data, self._position)
        self._position += struct.calcsize(form)
        return values

    def text(self) -> str:
        end = self._data.index(b"\0", self._position)
        text = self._data[self._position : end].decode()
        self._position = end + 1
        return text

    def row(self, columns: tuple[str, ...]) -> Row:
        (count,) = self.take("!H")
        row: Row = {}
        for name in columns[:count]:
            kind = chr(self.take("!B")[0])
            if kind == "u":
                row[name] = UNCHANGED
            elif kind == "n":
                row[name] = None
            else:
                (length,) = self.take("!I")
                row[name] = self._data[self._position : self._position + length].decode()
                self._position += length
        return row

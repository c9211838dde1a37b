"""Every statement that the warehouse runs, as text. Pure.

Redshift has no conditional statement outside procedures, and a batch of the Data API no client between its statements.
So a guard is a SELECT that divides by zero where the warehouse is not as it was read: the whole transaction is undone.
Statements: Redshift Database Developer Guide, "SQL commands". A string literal takes no quote and no backslash here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lake.tables.shape import ColumnShape, TableShape
from schemas.ownership import Owner
from warehouse.folding import KEY_BYTES
from warehouse.kinds import cast, redshift_type, staged_type, unstaged
from warehouse.shape import RESERVED, ROWS, fingerprint, marked, plain, registered_kind, retyped
from warehouse.states import STATE_BYTES

REGISTERS = frozenset({"ragstream_tables", "ragstream_columns", "ragstream_owner"})
"""The tables of the registry."""
STAGE, PIECES, KEYS, NEW = "ragstream_stage", "ragstream_pieces", "ragstream_keys", "ragstream_new"
"""Temporary tables of one transaction."""
_PLAIN = re.compile(r"[^'\\\0]*")

_KEY, _SEQUENCE = f"VARCHAR({KEY_BYTES})", "VARCHAR(104)"
_RESERVED_TYPES = {
    "_key": f"{_KEY} NOT NULL", "_live": "BOOLEAN NOT NULL", "_revision": "BIGINT NOT NULL",
    "_sequence": f"{_SEQUENCE} NOT NULL", "_oldest": f"{_SEQUENCE} NOT NULL", "_commit_time": "TIMESTAMPTZ",
    "_loaded_at": "TIMESTAMPTZ NOT NULL", "_pending": "SUPER", "_state": f"VARCHAR({STATE_BYTES}) NOT NULL",
}  # fmt: skip
_STAGED_TYPES = {
    "_key": _KEY, "_base_revision": "BIGINT", "_live": "BOOLEAN", "_sequence": _SEQUENCE, "_oldest": _SEQUENCE,
    "_commit_time": staged_type("timestamp"), "_pending": staged_type("super"), "_state": f"VARCHAR({STATE_BYTES})",
}  # fmt: skip
_PIECE_TYPES = {"_key": _KEY, "_layer": "BIGINT", "_from": _KEY, "_revision": "BIGINT", "_mask": "VARCHAR(1600)"}


def quoted(name: str) -> str:
    """An identifier, so that any name is one."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def literal(text: str) -> str:
    """A string literal; raises ValueError for text that would need an escape, which Redshift and PostgreSQL write differently."""
    if not _PLAIN.fullmatch(text):
        raise ValueError("a literal must not need an escape")
    return f"'{text}'"


def _columns(types: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in types.items())


@dataclass(frozen=True)
class Copies:
    """COPY statements, by the role that may read the staged files."""

    iam_role: str

    def into(self, table: str, manifest: str) -> str:
        """Load Parquet files by a manifest; columns go by their place."""
        role = "default" if self.iam_role == "default" else literal(self.iam_role)
        return f"COPY {table} FROM {literal(manifest)} IAM_ROLE {role} FORMAT AS PARQUET MANIFEST"


@dataclass(frozen=True)
class Registry:
    """The tables in the warehouse that keep the columns and the newest TRUNCATE of each loaded table, and the schema's owner."""

    schema: str

    @property
    def tables(self) -> str:
        """One row a table; whoever writes locks it, so that loads follow each other and readers wait for none."""
        return f"{quoted(self.schema)}.ragstream_tables"

    @property
    def columns(self) -> str:
        """One row a column."""
        return f"{quoted(self.schema)}.ragstream_columns"

    @property
    def owner(self) -> str:
        """One row: the pipeline that loads into the schema, and its lake."""
        return f"{quoted(self.schema)}.ragstream_owner"

    def find(self) -> str:
        """Which of the schema and the registry's tables exist."""
        named = ", ".join(literal(name) for name in sorted(REGISTERS))
        return (
            f"SELECT n.nspname, t.tablename FROM pg_namespace n LEFT JOIN pg_tables t ON t.schemaname = n.nspname "
            f"AND t.tablename IN ({named}) WHERE n.nspname = {literal(self.schema)}"
        )

    def create(self) -> list[str]:
        """Create the registry."""
        return [
            (
                f"CREATE TABLE IF NOT EXISTS {self.tables} (table_name VARCHAR(1024) NOT NULL, "
                f"name VARCHAR(512) NOT NULL, fingerprint VARCHAR(64) NOT NULL, truncated {_SEQUENCE} NOT NULL)"
            ),
            (
                f"CREATE TABLE IF NOT EXISTS {self.columns} (table_name VARCHAR(1024) NOT NULL, place INTEGER NOT NULL, "
                "source VARCHAR(1024) NOT NULL, name VARCHAR(512) NOT NULL, kind VARCHAR(64) NOT NULL)"
            ),
            f"CREATE TABLE IF NOT EXISTS {self.owner} (pipeline VARCHAR(64) NOT NULL, lake VARCHAR(64) NOT NULL)",
        ]

    def owned(self) -> str:
        """Read the schema's owner."""
        return f"SELECT pipeline, lake FROM {self.owner}"

    def claim(self, owner: Owner, instead_of: Owner | None) -> list[str]:
        """Compare-and-set the owner from none, or `instead_of`; the last statement returns the owner now."""
        disowned = [
            f"DELETE FROM {self.owner} WHERE pipeline = {literal(previous.pipeline)} AND lake = {literal(previous.lake)}"
            for previous in (instead_of,) if previous
        ]  # fmt: skip
        claimed = (
            f"INSERT INTO {self.owner} SELECT {literal(owner.pipeline)}, {literal(owner.lake)} "
            f"WHERE NOT EXISTS (SELECT 1 FROM {self.owner})"
        )
        return [f"LOCK TABLE {self.owner}", *disowned, claimed, self.owned()]

    def create_schema(self) -> str:
        """Create the schema."""
        return f"CREATE SCHEMA IF NOT EXISTS {quoted(self.schema)}"

    def lock(self) -> str:
        """Wait until no other load writes; before anything that takes a snapshot."""
        return f"LOCK TABLE {self.tables}"


@dataclass(frozen=True)
class TableStatements:
    """The statements of one table."""

    registry: Registry
    table: str
    """Its name in the source."""
    name: str
    """Its name in the warehouse."""

    @property
    def view(self) -> str:
        """What readers select from: live rows, business columns only."""
        return f"{quoted(self.registry.schema)}.{quoted(self.name)}"

    @property
    def rows(self) -> str:
        """The table itself, with tombstones."""
        return f"{quoted(self.registry.schema)}.{quoted(self.name + ROWS)}"

    @property
    def _named(self) -> str:
        return f"table_name = {literal(plain(self.table))}"

    def known(self) -> str:
        """The columns the table has, its newest TRUNCATE, and the name it was created by."""
        return (
            f"SELECT c.place, c.source, c.name, c.kind, t.truncated, t.name FROM {self.registry.columns} c "
            f"JOIN {self.registry.tables} t ON t.table_name = c.table_name WHERE c.{self._named}"
        )

    def create(self, shape: TableShape) -> list[str]:
        """Create the table, its view and its entries, once."""
        business = [f"{quoted(c.name)} {redshift_type(c.kind)}" for c in shape.columns]
        columns = ", ".join([_columns(_RESERVED_TYPES), *business])
        return [
            self.registry.lock(),
            _guard(f"FROM {self.registry.tables} WHERE {self._named}", 0),
            f"CREATE TABLE {self.rows} ({columns}) DISTKEY(_key) SORTKEY(_key)",
            (
                f"INSERT INTO {self.registry.tables} VALUES ({literal(plain(self.table))}, {literal(plain(self.name))}, "
                f"{literal(fingerprint(shape))}, '')"
            ),
            self._register(shape.columns, 0),
            self._view(shape, dropped=True),
        ]

    def alter(self, current: TableShape, target: TableShape) -> list[str]:
        """Add columns, show, hide or widen one: by a new column in its place, since Redshift changes no other type in place."""
        added = target.columns[len(current.columns) :]
        changed, remarked = retyped(current, target), marked(current, target)
        return [
            *self._unchanged(current, None),
            *([f"DROP VIEW IF EXISTS {self.view}"] if changed or remarked else []),
            *(statement for pair in changed for statement in self._widen(*pair)),
            *(self._registered_as(column) for column in remarked),
            *(f"ALTER TABLE {self.rows} ADD COLUMN {quoted(c.name)} {redshift_type(c.kind)}" for c in added),
            *([self._register(added, len(current.columns))] if added else []),
            self._view(target, dropped=bool(changed or remarked)),
            f"UPDATE {self.registry.tables} SET fingerprint = {literal(fingerprint(target))} WHERE {self._named}",
        ]

    def _widen(self, before: ColumnShape, after: ColumnShape) -> list[str]:
        column, aside = quoted(after.name), quoted("ragstream_widened")
        return [
            f"ALTER TABLE {self.rows} ADD COLUMN {aside} {redshift_type(after.kind)}",
            f"UPDATE {self.rows} SET {aside} = {cast(column, before.kind, after.kind)} WHERE {column} IS NOT NULL",
            f"ALTER TABLE {self.rows} DROP COLUMN {column}",
            f"ALTER TABLE {self.rows} RENAME COLUMN {aside} TO {column}",
            self._registered_as(after),
        ]

    def _registered_as(self, column: ColumnShape) -> str:
        return (
            f"UPDATE {self.registry.columns} SET kind = {literal(registered_kind(column))} "
            f"WHERE {self._named} AND source = {literal(plain(column.source))}"
        )

    def _register(self, columns: Sequence[ColumnShape], first: int) -> str:
        values = ", ".join(
            f"({literal(plain(self.table))}, {first + at}, {literal(plain(c.source))}, {literal(plain(c.name))}, "
            f"{literal(registered_kind(c))})"
            for at, c in enumerate(columns)
        )
        return f"INSERT INTO {self.registry.columns} VALUES {values}"

    def _view(self, shape: TableShape, *, dropped: bool) -> str:
        listed = ", ".join(quoted(c.name) for c in shape.columns if not c.hidden)
        verb = "CREATE VIEW" if dropped else "CREATE OR REPLACE VIEW"
        return f"{verb} {self.view} AS SELECT {listed} FROM {self.rows} WHERE _live WITH NO SCHEMA BINDING"

    def _unchanged(self, shape: TableShape, truncated: str | None) -> list[str]:
        """Lock, and undo everything where the table's columns or its newest TRUNCATE are not those that were read."""
        mark = "" if truncated is None else f" AND truncated = {literal(truncated)}"
        condition = (
            f"FROM {self.registry.tables} WHERE {self._named} AND fingerprint = {literal(fingerprint(shape))}{mark}"
        )
        return [self.registry.lock(), _guard(condition, 1)]

    def read(self, copies: Copies, manifest: str | None, truncated: str, *, lagging: bool) -> list[str]:
        """Read the states of staged keys and, after a TRUNCATE, of rows that hold anything older beside something newer."""
        select = f"SELECT t._key, t._revision, t._state FROM {self.rows} t"
        mark = literal(truncated)
        survivors = f"t._sequence > {mark} AND t._oldest <= {mark}"
        if manifest is None:
            return [f"{select} WHERE {survivors}"] if lagging else []
        touched = f"LEFT JOIN {KEYS} k ON k._key = t._key WHERE k._key IS NOT NULL OR ({survivors})"
        return [
            f"CREATE TEMP TABLE {KEYS} (_key {_KEY}) DISTKEY(_key)",
            copies.into(KEYS, manifest),
            f"{select} {touched if lagging else f'JOIN {KEYS} k ON k._key = t._key'}",
            f"DROP TABLE {KEYS}",
        ]

    def states(self, names: Sequence[str]) -> str:
        """Read the states of a few rows, whose keys are bound to these names."""
        keys = ", ".join(f":{name}" for name in names)
        return f"SELECT _key, _revision, _state FROM {self.rows} WHERE _key IN ({keys})"

    def refused(self) -> str:
        """The keys of rows with a value that its column refused."""
        return f"SELECT _key FROM {self.rows} WHERE _state LIKE '%!%'"

    def write(self, load: Load) -> list[str]:
        """Replace the rows that were folded, all or none: guarded by revision and sequence, in one transaction."""
        return [
            *self._unchanged(load.shape, load.known_truncation),
            *self._staged(load),
            *self._replaced(load),
            *self._truncated(load),
        ]

    def _staged(self, load: Load) -> list[str]:
        if load.rows is None:
            return []
        types = _STAGED_TYPES | {f"c{at}": staged_type(c.kind) for at, c in enumerate(load.shape.columns)}
        checks = [_guard(_moved(self.rows, STAGE, "_key", "_base_revision"), 0)]
        if load.pieces:
            checks.append(_guard(_moved(self.rows, PIECES, "_from", "_revision"), 0))
        return [
            f"CREATE TEMP TABLE {STAGE} ({_columns(types)}) DISTKEY(_key)",
            load.copies.into(STAGE, load.rows),
            *([f"CREATE TEMP TABLE {PIECES} ({_columns(_PIECE_TYPES)})"] if load.pieces else []),
            *([load.copies.into(PIECES, load.pieces)] if load.pieces else []),
            *checks,
        ]

    def _replaced(self, load: Load) -> list[str]:
        if load.rows is None:
            return []
        target = ", ".join([*RESERVED, *(quoted(c.name) for c in load.shape.columns)])
        return [
            f"CREATE TEMP TABLE {NEW} (LIKE {self.rows})",
            f"INSERT INTO {NEW} ({target}) {self._selected(load)}",
            (
                f"DELETE FROM {self.rows} USING {NEW} WHERE {self.rows}._key = {NEW}._key "
                f"AND {self.rows}._revision < {NEW}._revision AND {self.rows}._sequence <= {NEW}._sequence"
            ),
            f"INSERT INTO {self.rows} ({target}) SELECT {target} FROM {NEW}",
            *(f"DROP TABLE {name}" for name in (STAGE, NEW, *([PIECES] if load.pieces else []))),
        ]

    def _selected(self, load: Load) -> str:
        layers = range(load.layers if load.pieces else 0)
        values = [_value(f"s.c{at}", c, at, layers) for at, c in enumerate(load.shape.columns)]
        reserved = [
            "s._key", "s._live", "s._base_revision + 1", "s._sequence", "s._oldest",
            unstaged("s._commit_time", "timestamp"),
            f"CAST({literal(load.loaded_at)} AS TIMESTAMPTZ)", unstaged("s._pending", "super"), "s._state",
        ]  # fmt: skip
        joins = [
            f" LEFT JOIN {PIECES} p{n} ON p{n}._key = s._key AND p{n}._layer = {n}"
            f" LEFT JOIN {self.rows} h{n} ON h{n}._key = p{n}._from"
            for n in layers
        ]
        return f"SELECT {', '.join([*reserved, *values])} FROM {STAGE} s{''.join(joins)}"

    def _truncated(self, load: Load) -> list[str]:
        if load.truncated == load.known_truncation:
            return []
        mark = literal(load.truncated)
        return [
            f"DELETE FROM {self.rows} WHERE _sequence <= {mark}",
            f"UPDATE {self.registry.tables} SET truncated = {mark} WHERE {self._named}",
        ]


@dataclass(frozen=True)
class Load:
    """What one transaction changes in one table."""

    copies: Copies
    shape: TableShape
    known_truncation: str
    """The newest TRUNCATE when the table was read."""
    truncated: str
    """The newest TRUNCATE now."""
    rows: str | None
    """The manifest of staged rows; None when no row changes."""
    pieces: str | None
    """The manifest of values to copy; None when there are none."""
    layers: int
    """Most pieces of one row."""
    loaded_at: str


def probe(copies: Copies, manifest: str) -> list[str]:
    """Load a staged file of keys into a temporary table, and drop it."""
    return [f"CREATE TEMP TABLE {KEYS} (_key {_KEY})", copies.into(KEYS, manifest), f"DROP TABLE {KEYS}"]


def _guard(condition: str, count: int) -> str:
    return f"SELECT 1 / CASE WHEN COUNT(*) = {count} THEN 1 ELSE 0 END {condition}"


def _moved(rows: str, staged: str, key: str, revision: str) -> str:
    """Staged rows that were folded from another revision than the table holds."""
    joined = f"FROM {staged} s LEFT JOIN {rows} t ON t._key = s.{key}"
    return f"{joined} WHERE COALESCE(t._revision, 0) <> s.{revision}"


def _value(staged: str, column: ColumnShape, place: int, layers: range) -> str:
    staged_value = unstaged(staged, column.kind)
    if not layers:
        return staged_value
    cases = [f"WHEN SUBSTRING(p{n}._mask, {place + 1}, 1) = '1' THEN h{n}.{quoted(column.name)}" for n in layers]
    return f"CASE {' '.join(cases)} ELSE {staged_value} END"

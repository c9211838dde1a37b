"""The captured database's tables, read from its catalogue by `ragstream check` and `ragstream capture`, never by a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from schemas.errors import UnavailableError
from sources.capture.target import tables_named

if TYPE_CHECKING:
    import psycopg

    from sources.capture.part import CapturePart

GENERATED_COLUMNS_SINCE = 180000
"""The version of PostgreSQL whose publications can send generated columns."""


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """A column of a source table."""

    name: str
    type: str
    """As PostgreSQL writes it: `numeric(10,2)[]`."""
    base: str
    """Name of the type in `pg_type`, below all domains; an array's begins with an underscore."""
    in_domain: bool
    out_of_line: bool
    """Whether a large value is stored outside of the row (TOAST): the log leaves it out while it does not change."""
    generated: Literal["", "stored", "virtual"] = ""
    defaulted: bool = False
    """Whether it may be NULL and its default is another value."""


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A source table. `stored` has every table that holds its rows: the partitions, or itself."""

    name: str
    kind: str
    """`pg_class.relkind`: r table, p partitioned table, v view, m materialized view, f foreign table."""
    logged: bool
    columns: tuple[SourceColumn, ...]
    stored: tuple[StoredIn, ...]
    keys: tuple[str, ...] = ()
    """Columns of the primary key, in its order."""


@dataclass(frozen=True, slots=True)
class StoredIn:
    """A table that holds rows, and which columns of an old row its log has."""

    name: str
    identity: str
    """`pg_class.relreplident`: d the primary key, i an index, f the whole row, n nothing."""
    identity_columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Publication:
    """A publication: the tables and changes that pgoutput sends."""

    name: str
    via_root: bool
    generated: bool
    whole: bool
    """Whether it sends inserts, updates, deletes and truncates."""
    tables: frozenset[str]


@dataclass(frozen=True, slots=True)
class Source:
    """The database; a table that is not in `tables` does not exist, or this user may not see it."""

    version: int
    """As `server_version_num`: 180001."""
    tables: dict[str, SourceTable] = field(default_factory=dict)
    publications: dict[str, Publication] = field(default_factory=dict)
    slots: dict[str, str] = field(default_factory=dict)
    """Replication slots of this database, with their `wal_status`."""


def ask(capture: CapturePart, tables: Sequence[str]) -> Source:
    """Ask PostgreSQL for tables (`schema.table`).

    Reads the catalogue alone, and changes nothing. Raises UnavailableError when the database does not answer, or refuses.
    """
    import psycopg

    named = tables_named(tables)
    names = [table.schema for table in named], [table.name for table in named]
    try:
        with psycopg.connect(capture.conninfo, autocommit=True, connect_timeout=5) as connection:
            version = connection.info.server_version
            return Source(version, _tables(connection, names), _publications(connection, version), _slots(connection))
    except psycopg.Error as error:
        reason = error.sqlstate or type(error).__name__
        raise UnavailableError(
            f"capture: the source's PostgreSQL does not answer ({reason}), so nothing could be compared with it",
            hint="check `capture.dsn`, and the network route from here to the database",
        ) from None


def _tables(connection: psycopg.Connection[Any], names: tuple[list[str], list[str]]) -> dict[str, SourceTable]:
    columns: dict[str, list[SourceColumn]] = {}
    for table, *column in _rows(connection, _COLUMNS, names):
        columns.setdefault(table, []).append(SourceColumn(*column))
    stored: dict[str, list[StoredIn]] = {}
    for table, name, identity, identity_columns in _rows(connection, _STORED, names):
        stored.setdefault(table, []).append(StoredIn(name, identity, tuple(identity_columns)))
    return {
        name: SourceTable(name, kind, logged, tuple(columns.get(name, ())), tuple(stored.get(name, ())), tuple(keys))
        for name, kind, logged, keys in _rows(connection, _TABLES, names)
    }


def _rows(connection: psycopg.Connection[Any], query: str, names: tuple[list[str], list[str]]) -> list[tuple[Any, ...]]:
    return connection.execute(f"{_WANTED}{query}".encode(), names).fetchall()


def _publications(connection: psycopg.Connection[Any], version: int) -> dict[str, Publication]:
    generated = "pubgencols = 's'" if version >= GENERATED_COLUMNS_SINCE else "false"
    rows = connection.execute(_PUBLICATIONS.replace("GENERATED", generated).encode())
    return {row[0]: Publication(row[0], row[1], row[2], row[3], frozenset(row[4])) for row in rows}


def _slots(connection: psycopg.Connection[Any]) -> dict[str, str]:
    query = "SELECT slot_name, coalesce(wal_status, '') FROM pg_replication_slots WHERE database = current_database()"
    return dict(connection.execute(query).fetchall())


_WANTED = """
WITH wanted AS (
    SELECT c.oid, n.nspname || '.' || c.relname AS name, c.relkind, c.relpersistence
    FROM unnest(%s::text[], %s::text[]) AS asked (owner, title)
    JOIN pg_namespace n ON n.nspname = asked.owner
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = asked.title AND c.relkind = ANY ('{r,p,v,m,f}')
)
"""
_TABLES = """
SELECT name, relkind::text, relpersistence = 'p', ARRAY(
    SELECT a.attname::text FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
    WHERE i.indrelid = wanted.oid AND i.indisprimary ORDER BY array_position(i.indkey::int2[], a.attnum)
)
FROM wanted
"""
_COLUMNS = """
SELECT w.name, a.attname, format_type(a.atttypid, a.atttypmod), base.typname, base.oid <> a.atttypid,
       a.attlen = -1 AND a.attstorage <> 'p', CASE a.attgenerated WHEN 's' THEN 'stored' WHEN 'v' THEN 'virtual' ELSE '' END,
       a.atthasdef AND NOT a.attnotnull AND a.attgenerated = ''
FROM wanted w
JOIN pg_attribute a ON a.attrelid = w.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN LATERAL (
    WITH RECURSIVE below AS (
        SELECT t.* FROM pg_type t WHERE t.oid = a.atttypid
        UNION ALL SELECT t.* FROM pg_type t JOIN below ON t.oid = below.typbasetype AND below.typtype = 'd'
    ) SELECT oid, typname FROM below WHERE typtype <> 'd'
) base ON true
ORDER BY w.name, a.attnum
"""
_STORED = """
SELECT w.name, n.nspname || '.' || c.relname, c.relreplident::text, ARRAY(
    SELECT a.attname::text FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
    WHERE i.indrelid = c.oid AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END
    ORDER BY a.attnum
)
FROM wanted w
JOIN LATERAL (
    SELECT w.oid AS relid WHERE w.relkind = 'r'
    UNION ALL SELECT relid FROM pg_partition_tree(w.oid) WHERE w.relkind = 'p' AND isleaf
) leaf ON true
JOIN pg_class c ON c.oid = leaf.relid
JOIN pg_namespace n ON n.oid = c.relnamespace
ORDER BY 1, 2
"""
_PUBLICATIONS = """
SELECT p.pubname, p.pubviaroot, GENERATED, p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate,
       ARRAY(SELECT t.schemaname || '.' || t.tablename FROM pg_publication_tables t WHERE t.pubname = p.pubname)
FROM pg_publication p
"""

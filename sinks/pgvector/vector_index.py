"""The vector index of a pgvector store: dropped while a load is under way, and built once by PostgreSQL's parallel build.

It is built CONCURRENTLY, so live writes go on, under an advisory lock of the building session: whoever is killed meanwhile, the
next one waits for a build that PostgreSQL still runs, drops one that is half built, and builds again. PostgreSQL uses no
invalid index, and `is_valid` counts it as none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors, sql

from sinks.bulk_loads import MOST_COMPARED_BYTES, Build
from sinks.bulk_loads import filling as sentence
from sinks.pgvector.connection import connect
from sinks.pgvector.versions import stored

if TYPE_CHECKING:
    from psycopg import Connection

    from sinks.pgvector.config import PgvectorConfig
    from sinks.pgvector.schema import Names

LEAST_INDEXED = 1_000
"""A store of fewer vectors needs no index: all are compared in two milliseconds."""
_ELEMENT_BYTES = 800
"""A node of the graph in memory beside its vector: pgvector's HnswElementData, and 16 bytes for each of 2 * m neighbours."""
_MB = 1 << 20
_PROGRESS_SECONDS = 1.0

_CREATE = "CREATE INDEX CONCURRENTLY IF NOT EXISTS {index} ON {vectors} USING hnsw (embedding vector_cosine_ops)"

_VALID = """
SELECT i.indisvalid FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS a ON a.oid = c.relam
WHERE i.indrelid = to_regclass(%s) AND a.amname = 'hnsw' ORDER BY i.indisvalid DESC LIMIT 1"""

_PAGE = 8192
_PAGES = f"SELECT pg_relation_size(to_regclass(%s)) / {_PAGE}"
_BESIDE_BYTES = 120
"""Of a tuple of `vectors` beside its numbers: header, hash, time, line pointer."""

_PROGRESS = """
SELECT greatest(p.tuples_done, p.tuples_total * p.blocks_done / greatest(p.blocks_total, 1)),
       extract(epoch FROM clock_timestamp() - a.query_start)::float8
FROM pg_stat_progress_create_index AS p JOIN pg_stat_activity AS a USING (pid) WHERE p.relid = to_regclass(%s)"""


def is_valid(connection: Connection[Any], names: Names) -> bool:
    """Whether there is a vector index that PostgreSQL uses."""
    row = connection.execute(_VALID, (names["vectors"].as_string(connection),), prepare=True).fetchone()
    return bool(row and row[0])


def estimated(connection: Connection[Any], names: Names, dimensions: int) -> int:
    """The number of vectors, by the size of their table; 0 only where there is none."""
    rows = _pages(connection, names) * _rows_of_a_page(dimensions)
    if rows > LEAST_INDEXED:
        return rows
    counted = "SELECT count(*) FROM (SELECT FROM {vectors} LIMIT 2000) AS v"
    row = connection.execute(names.compose(counted)).fetchone()
    return row[0] if row else 0


def most_compared(dimensions: int) -> int:
    """The number of vectors that readers compare one by one: those of a table of `MOST_COMPARED_BYTES`."""
    return MOST_COMPARED_BYTES // _PAGE * _rows_of_a_page(dimensions)


def filling(connection: Connection[Any], names: Names) -> str:
    """How far the load is of a store without an index; empty where its vectors are few enough to be compared one by one."""
    if _pages(connection, names) * _PAGE <= MOST_COMPARED_BYTES:
        return ""
    version = stored(connection, names).numbered(names.index_version)
    building = progress(connection, names, version.dimensions)
    return sentence(version.bulk_load, estimated(connection, names, version.dimensions), building)


def drop(connection: Connection[Any], names: Names) -> None:
    """Drop the index, without a lock against readers. Idempotent; outside a transaction alone.

    A user who may not drop it, as another one owns the tables, keeps it: a load is slower then.
    """
    statement = names.compose("DROP INDEX CONCURRENTLY IF EXISTS {index}", index=names["vectors_by_distance"])
    with suppress(errors.InsufficientPrivilege):
        connection.execute(statement)


def build(config: PgvectorConfig, names: Names, dimensions: int, on_progress: Callable[[Build], object]) -> bool:
    """Build the index if it is missing; False while another process builds it.

    Raises psycopg's errors; the same call later goes on.
    """
    with closing(connect(config, "ragstream build")) as connection:
        locked = connection.execute("SELECT pg_try_advisory_lock(hashtext(%s))", (_lock_name(names),)).fetchone()
        if not (locked and locked[0]):
            return False
        if is_valid(connection, names):
            return True
        drop(connection, names)  # one that is half built
        vectors = estimated(connection, names, dimensions)
        for setting in _settings(connection, config, vectors, dimensions):
            connection.execute(setting)
        statement = names.compose(_CREATE, index=names["vectors_by_distance"])
        with _reported(config, names, dimensions, on_progress):
            connection.execute(statement)
        for part in ("documents", "chunks", "vectors"):
            connection.execute(sql.SQL("ANALYZE {}").format(names[part]))  # else plans count on the few rows of before
        return is_valid(connection, names)


def progress(connection: Connection[Any], names: Names, dimensions: int) -> Build | None:
    """How far the build is that PostgreSQL runs now; None without one."""
    row = connection.execute(_PROGRESS, (names["vectors"].as_string(connection),)).fetchone()
    return None if row is None else Build(int(row[0] or 0), estimated(connection, names, dimensions), row[1])


def _pages(connection: Connection[Any], names: Names) -> int:
    """The pages of the vectors' table."""
    row = connection.execute(_PAGES, (names["vectors"].as_string(connection),)).fetchone()
    return int((row and row[0]) or 0)


def _rows_of_a_page(dimensions: int) -> int:
    return max(1, _PAGE // (4 * dimensions + _BESIDE_BYTES))


def _settings(connection: Connection[Any], config: PgvectorConfig, vectors: int, dimensions: int) -> Iterator[str]:
    """The settings of the session that builds: memory for the whole graph, up to the configured limit."""
    own = "SELECT setting::bigint / 1024 FROM pg_settings WHERE name = 'maintenance_work_mem'"
    row = connection.execute(own).fetchone()
    needed = vectors * (4 * dimensions + _ELEMENT_BYTES) * 11 // 10 // _MB + 64
    yield f"SET maintenance_work_mem = '{max(row[0] if row else 0, min(needed, config.index_memory_mb))}MB'"
    yield "SET statement_timeout = 0"
    yield "SET lock_timeout = 0"


@contextmanager
def _reported(
    config: PgvectorConfig, names: Names, dimensions: int, on_progress: Callable[[Build], object]
) -> Iterator[None]:
    """Report how far the build is, by another connection; a report that fails is left out."""
    ended = threading.Event()

    def report() -> None:
        try:
            with closing(connect(config, "ragstream build progress")) as connection:
                while not ended.wait(_PROGRESS_SECONDS):
                    if (state := progress(connection, names, dimensions)) is not None:
                        on_progress(state)
        except psycopg.Error:
            return

    thread = threading.Thread(target=report, daemon=True, name="build progress")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _lock_name(names: Names) -> str:
    return f"ragstream:build:{names.table}:{names.index_version}"

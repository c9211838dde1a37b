"""All that a pipeline has written, as text: where a value that must not travel is looked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
from psycopg import sql


def texts(folder: Path, *dsns: str) -> Iterator[tuple[str, str]]:
    """Every file below a folder, Parquet as rows too, and the rows of databases, each with its place."""
    for file in (path for path in folder.rglob("*") if path.is_file()):
        yield str(file), file.read_bytes().decode("latin-1")
        if file.suffix == ".parquet":
            yield str(file), str(pq.ParquetFile(file).read().to_pylist())
    for dsn in dsns:
        with psycopg.connect(dsn) as connection:
            tables = "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            for name in connection.execute(tables).fetchall():
                rows = connection.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(*name))).fetchall()
                yield ".".join(name), str(rows)


def places_of(canary: str, folder: Path, *dsns: str) -> list[str]:
    """Where a value was written."""
    return sorted({place for place, text in texts(folder, *dsns) if canary in text})

"""Document rows, chunks and vectors written through one connection: by guarded statements, and many new ones by COPY.

COPY is guarded too: a row that is there already is refused by its primary key, and then the statements decide row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.pq import PipelineStatus
from psycopg.types.json import Jsonb

from sinks.pgvector import schema
from sinks.pgvector.refusals import check_width
from sinks.pgvector.rows import chunk_rows, document_row
from transforms.documents.languages import OWN

if TYPE_CHECKING:
    import numpy as np
    from psycopg import Connection

    from schemas.documents import DocumentWrite
    from sinks.pgvector.schema import Names

COPY_FROM = 32
"""New rows from which on they are copied: fewer take less time as statements of one pipeline."""
_DOCUMENT = (
    ("document_id", "text"), ("table_name", "text"), ("key", "jsonb"), ("sequence", "text"), ("revision", "int8"),
    ("live", "bool"), ("metadata", "jsonb"), ("metadata_terms", "text[]"), ("state", "text"), ("texts", "text"),
    ("recipe", "text"), ("pending", "text[]"), ("commit_time", "timestamptz"),
)  # fmt: skip
_CHUNK = (
    ("chunk_id", "text"), ("document_id", "text"), ("chunk_index", "int4"), ("content_hash", "text"), ("chunk_text", "text"),
)  # fmt: skip
_VECTOR = (("content_hash", "text"), ("embedding", "vector"))

REPLACE = "(content_hash) DO UPDATE SET embedding = excluded.embedding"

type LanguageOf = Callable[[DocumentWrite], str]
"""The key of a document's language in the store."""


def write_documents(
    connection: Connection[Any], names: Names, sink: str, writes: Sequence[DocumentWrite], *, copied: bool
) -> set[str]:
    """Write document rows in the order given, new ones first; the ids of those that the guard lets through.

    Given in the order of their ids, that is one lock order for all writers, so no deadlock. `copied`: new rows by COPY; all of
    them are written, or UniqueViolation is raised.
    """
    new = [document_row(write) for write in writes if not write.base_revision]
    others = [document_row(write) for write in writes if write.base_revision]
    check_width(sink, [*new, *others])
    if copied:
        _copy(connection, names, "documents", _DOCUMENT, map(_copied_row, new))
        accepted = {row["document_id"] for row in new}
    else:
        accepted = _guarded(connection, names, schema.INSERT_DOCUMENT, new)
    return accepted | _guarded(connection, names, schema.UPDATE_DOCUMENT, others)


def _guarded(connection: Connection[Any], names: Names, statement: str, rows: Sequence[Mapping[str, Any]]) -> set[str]:
    if not rows:
        return set()
    cursor = connection.cursor()
    cursor.executemany(names.compose(statement), rows, returning=True)
    return {row[0] for result in cursor.results() if (row := result.fetchone())}


def _copied_row(row: Mapping[str, Any]) -> Sequence[Any]:
    """A document row in the order of `_DOCUMENT`; JSON is rendered already."""
    return (
        row["document_id"], row["table"], Jsonb(row["key"], dumps=str), row["sequence"], row["revision"], row["live"],
        Jsonb(row["metadata"], dumps=str), row["metadata_terms"], row["state"], row["texts"], row["recipe"], row["pending"],
        row["commit_time"],
    )  # fmt: skip


def write_chunks(
    connection: Connection[Any], names: Names, writes: Sequence[DocumentWrite], language_of: LanguageOf
) -> None:
    """Write the chunks of accepted documents; the added ones by COPY outside of a pipeline, in which there is none."""
    dropped = [chunk for write in writes for chunk in write.dropped]
    moved = [(chunk.chunk_index, chunk.chunk_id) for write in writes for chunk in write.moved]
    if dropped:
        connection.execute(names.compose("DELETE FROM {chunks} WHERE chunk_id = ANY(%s)"), (dropped,))
    if moved:
        statement = "UPDATE {chunks} SET chunk_index = %s WHERE chunk_id = %s"
        connection.cursor().executemany(names.compose(statement), moved)
    own, others = [w for w in writes if language_of(w) == OWN], [w for w in writes if language_of(w) != OWN]
    if connection.pgconn.pipeline_status == PipelineStatus.OFF:
        chunks = ((write, chunk) for write in own for chunk in write.added)
        values = ((c.chunk_id, w.document_id, c.chunk_index, c.content_hash, c.chunk_text) for w, c in chunks)
        _copy(connection, names, "chunks", _CHUNK, values)
        own = []
    for statement, inserted in ((schema.INSERT_CHUNK, own), (schema.INSERT_CHUNK_IN_LANGUAGE, others)):
        if rows := [row for write in inserted for row in chunk_rows(write)]:
            connection.cursor().executemany(names.compose(statement), rows)


def insert_vectors(
    connection: Connection[Any], names: Names, vectors: Mapping[str, np.ndarray], *, replace: bool
) -> None:
    """Insert vectors in the order of their hashes: one lock order for all writers, so no deadlock."""
    conflict = sql.SQL(REPLACE if replace else "DO NOTHING")
    statement = names.compose(
        "INSERT INTO {vectors} (content_hash, embedding) VALUES (%s, %b) ON CONFLICT {conflict}", conflict=conflict
    )
    connection.cursor().executemany(statement, sorted(vectors.items()))


def copy_vectors(connection: Connection[Any], names: Names, vectors: Mapping[str, np.ndarray]) -> None:
    """Copy vectors in the same order; all of them, or UniqueViolation."""
    _copy(connection, names, "vectors", _VECTOR, sorted(vectors.items()))


def _copy(
    connection: Connection[Any],
    names: Names,
    part: str,
    columns: Sequence[tuple[str, str]],
    rows: Iterable[Sequence[Any]],
) -> None:
    named = ", ".join(name for name, _ in columns)
    statement = names.compose(f"COPY {{{part}}} ({named}) FROM STDIN (FORMAT binary)")
    with connection.cursor().copy(statement) as copy:
        copy.set_types([kind for _, kind in columns])
        for row in rows:
            copy.write_row(row)

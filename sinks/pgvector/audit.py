"""The audit of a pgvector store: PostgreSQL computes the lines and weights of `sinks.digests` itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from psycopg import Connection, sql

from schemas.documents import HAS_VECTOR, ActualChunk, ActualDocument, BucketChecksum
from sinks.pgvector.schema import Names

_LINES = """
SELECT d.document_id, concat_ws('|', d.document_id, d.table_name, d.sequence, CASE WHEN d.live THEN 't' ELSE 'f' END,
                                d.recipe, d.key::text, d.metadata::text) AS line
FROM {documents} d LEFT JOIN {tables} t USING (table_name)
WHERE d.sequence > coalesce(t.truncated_sequence, '')
UNION ALL
SELECT d.document_id, concat_ws('|', d.document_id, c.chunk_id, c.chunk_index, c.content_hash,
                                encode(sha256(convert_to(c.chunk_text, 'UTF8')), 'hex'), {vector})
FROM {chunks} c JOIN {documents} d USING (document_id) LEFT JOIN {vectors} v USING (content_hash)
LEFT JOIN {tables} t USING (table_name)
WHERE d.sequence > coalesce(t.truncated_sequence, '')"""

_CHECKSUMS = """
SELECT left(document_id, %(width)s), count(*),
       sum(('x' || left(encode(sha256(convert_to(line, 'UTF8')), 'hex'), 15))::bit(60)::bigint)
FROM ({lines}) AS lines GROUP BY 1"""

_BUCKET = sql.SQL("""d.document_id >= %(bucket)s AND d.document_id < %(bucket)s || chr(1114111)
AND left(d.document_id, %(width)s) = %(bucket)s""")

_DOCUMENTS = """
SELECT d.document_id, d.table_name, d.key::text, d.sequence, d.revision, d.live, d.recipe, d.metadata::text
FROM {documents} d LEFT JOIN {tables} t USING (table_name)
WHERE d.sequence > coalesce(t.truncated_sequence, '') AND {bucket} ORDER BY 1"""

_CHUNKS = """
SELECT d.document_id, c.chunk_id, c.chunk_index, c.content_hash,
       encode(sha256(convert_to(c.chunk_text, 'UTF8')), 'hex'), {vector}
FROM {chunks} c JOIN {documents} d USING (document_id) LEFT JOIN {vectors} v USING (content_hash)
WHERE {bucket} ORDER BY 1, c.chunk_index"""

_VALUES = sql.SQL("coalesce(encode(sha256(substr(vector_send(v.embedding), 5)), 'hex'), '')")
"""pgvector sends two 16-bit numbers, then its values as big-endian float32 (vector.c, vector_send)."""
_PRESENCE = sql.SQL("CASE WHEN v.content_hash IS NULL THEN '' ELSE {} END").format(sql.Literal(HAS_VECTOR))


def checksums(connection: Connection[Any], names: Names, width: int, *, vectors: bool) -> dict[str, BucketChecksum]:
    """Sum all documents in one statement, so from one snapshot."""
    lines = names.compose(_LINES, vector=_VALUES if vectors else _PRESENCE)
    rows = connection.execute(names.compose(_CHECKSUMS, lines=lines), {"width": width})
    return {bucket: BucketChecksum(count, int(total)) for bucket, count, total in rows}


def documents_in(
    connection: Connection[Any], names: Names, bucket: str, width: int, *, vectors: bool
) -> Iterator[ActualDocument]:
    """Read one bucket. A document that is written between the two statements shows a difference, which is compared again."""
    where = {"bucket": bucket, "width": width}
    chunks: dict[str, list[ActualChunk]] = {}
    statement = names.compose(_CHUNKS, vector=_VALUES if vectors else _PRESENCE, bucket=_BUCKET)
    for document, chunk_id, index, content, text, vector in connection.execute(statement, where):
        chunks.setdefault(document, []).append(ActualChunk(chunk_id, index, content, text, vector))
    for document_id, *columns in connection.execute(names.compose(_DOCUMENTS, bucket=_BUCKET), where):
        table, key, sequence, revision, live, digest, metadata = columns
        own = tuple(chunks.get(document_id, ()))
        yield ActualDocument(document_id, document_id, table, key, sequence, revision, live, digest, metadata, own)

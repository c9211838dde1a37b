"""The comparison of a store with the lake: rows as lines of text, checksums of buckets, and the kinds of drift. Pure.

A document row and each chunk is a line; its weight is the first 60 bits of the line's SHA-256; the checksum of a bucket is the
sum of its lines' weights, so it depends on no order and counts a line that stands twice. A bucket is the documents whose ids
begin alike: ids are digests, so buckets are even, and each is a range of an index.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

import numpy as np

from schemas.documents import ActualChunk, ActualDocument, BucketChecksum, Chunk, DocumentWrite
from transforms.documents.planning import DocumentSpec, digest, is_refused, made_by, plan
from transforms.fold import RowState, truncated_at
from transforms.values import exact_json

DIGITS = 15
"""Hexadecimal digits of a line's digest that weigh: 60 bits, so that a weight is a bigint everywhere."""

type Kind = Literal["missing", "orphan", "stale", "duplicate", "refused"]
KINDS: tuple[Kind, ...] = ("missing", "orphan", "stale", "duplicate", "refused")
"""`refused` is no drift: the store marks a document that cannot be searched, as it should."""

type VectorOf = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True, slots=True)
class ExpectedChunk:
    """A chunk as the lake implies it, and the hashes of vectors that are valid for it (none known: any vector is)."""

    chunk_id: str
    content_hash: str
    line: str
    vectors: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ExpectedDocument:
    """A document as the lake implies it.

    `weight` is that of its row, `refused_weight` the same without metadata, as of a document that was refused. `waits` means
    that its template has an unresolved column: it keeps its stored chunks, whichever they are (I3).
    """

    document_id: str
    table: str
    sequence: str
    weight: int
    waits: bool
    chunks: tuple[ExpectedChunk, ...]
    refused_weight: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """A difference. `name` and `revision` identify the row of the store, `vector` says that a vector's values differ."""

    kind: Kind
    table: str
    document_id: str
    name: str
    revision: int
    vector: bool = False

    @property
    def foreign(self) -> bool:
        """Whether no pipeline's write reaches the row: it can only be removed."""
        return self.kind == "orphan" or self.name != self.document_id


def weight(line: str) -> int:
    """The weight of a line."""
    return int(hashlib.sha256(line.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS], 16)


def vector_hash(vector: np.ndarray) -> str:
    """The SHA-256 of a vector's values as big-endian float32, which is what PostgreSQL sends."""
    return hashlib.sha256(np.asarray(vector, ">f4").tobytes()).hexdigest()


def document_line(document: ActualDocument) -> str:
    """The parts of a document row that readers and the guard depend on."""
    live = "t" if document.live else "f"
    columns = (document.document_id, document.table, document.sequence, live, document.spec_digest)
    return "|".join((*columns, canonical(document.key), canonical(document.metadata)))


def chunk_line(document_id: str, chunk: ActualChunk) -> str:
    """All of a chunk but its vector, which follows after one more bar."""
    return f"{document_id}|{chunk.chunk_id}|{chunk.chunk_index}|{chunk.content_hash}|{chunk.text_hash}"


def checksums(documents: Iterable[ActualDocument], width: int) -> dict[str, BucketChecksum]:
    """Sum documents by the first `width` characters of their ids, for a store that cannot compute SHA-256."""
    rows: dict[str, int] = defaultdict(int)
    sums: dict[str, int] = defaultdict(int)
    for document in documents:
        bucket = document.document_id[:width]
        rows[bucket] += 1 + len(document.chunks)
        sums[bucket] += weight(document_line(document))
        sums[bucket] += sum(weight(f"{chunk_line(document.document_id, c)}|{c.vector}") for c in document.chunks)
    return {bucket: BucketChecksum(rows[bucket], sums[bucket]) for bucket in rows}


def actual_document(name: str, fields: Mapping[str, Any], vector_of: VectorOf) -> ActualDocument:
    """A document from its stored fields, of which a foreign row may lack any; `vector_of` gives `ActualChunk.vector`."""
    chunks = tuple(
        ActualChunk(
            chunk.get("chunk_id", ""), chunk.get("chunk_index", 0), chunk.get("content_hash", ""),
            digest(chunk.get("chunk_text", "")), vector_of(chunk),
        )
        for chunk in fields.get("chunks", ())
    )  # fmt: skip
    texts = {field: fields.get(field, "") for field in ("document_id", "table", "key", "sequence", "metadata")}
    revision, live, spec_digest = fields.get("revision", 0), fields.get("live", False), fields.get("recipe", "")
    return ActualDocument(name=name, **texts, revision=revision, live=live, spec_digest=spec_digest, chunks=chunks)


def expected_of(state: RowState, key: str, spec: DocumentSpec, truncated: str) -> ExpectedDocument | None:
    """The document that a store should have for a row; None for one that a TRUNCATE covers."""
    state = truncated_at(state, truncated)
    write = plan(None, state, key, spec)
    if write is None or state.newest <= truncated:
        return None
    chunks = tuple(_expected_chunk(write.document_id, chunk) for chunk in write.chunks)
    waits = not spec.texts.isdisjoint(write.unresolved)
    row = _row_of(write)
    return ExpectedDocument(
        write.document_id, write.table, state.newest, weight(document_line(row)), waits, chunks, _refused_weight(row)
    )


def classify_drift(
    expected: ExpectedDocument | None,
    actual: Sequence[ActualDocument],
    landed: Mapping[str, str],
    truncated: Mapping[str, str],
) -> list[Finding]:
    """Compare a document with the rows that a store has of it.

    `landed` is the newest sequence the lake has of each table that feeds it, `truncated` the store's own marks. A row newer than
    the lake is no difference: it has not landed yet.
    """
    row = _own_row(actual) if actual else None
    findings = [_finding("duplicate", other) for other in actual if row is not None and other.name != row.name]
    if expected is None and row is not None:
        ahead = row.table in landed and row.sequence > landed[row.table]
        findings += [] if ahead else [_finding("orphan", row)]
    elif expected is not None and row is None:
        covered = expected.sequence <= truncated.get(expected.table, "")
        findings += (
            [] if covered else [Finding("missing", expected.table, expected.document_id, expected.document_id, 0)]
        )
    elif expected is not None and row is not None and row.sequence <= expected.sequence:
        vector = _has_other_vector(expected, row)
        if is_refused(row.spec_digest) and not row.chunks and _refused_weight(row) == expected.refused_weight:
            findings.append(_finding("refused", row))
        elif len({chunk.chunk_id for chunk in row.chunks}) < len(row.chunks):
            findings.append(_finding("duplicate", row, vector=vector))
        elif vector or not _equal(expected, row):
            findings.append(_finding("stale", row, vector=vector))
    return findings


def most_removed(documents: int) -> int:
    """Orphans that a repair removes without being told to: 1 % of the documents, at least 3."""
    return max(3, documents // 100)


def canonical(text: str) -> str:
    """JSON as PostgreSQL prints jsonb; a text that is no JSON stays as it is."""
    try:
        return _jsonb(exact_json.loads(text))
    except ValueError:
        return text


def _jsonb(value: Any) -> str:
    if isinstance(value, dict):
        ordered = sorted(value.items(), key=lambda item: (len(item[0].encode()), item[0].encode()))
        return "{" + ", ".join(f"{_jsonb(name)}: {_jsonb(member)}" for name, member in ordered) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_jsonb, value)) + "]"
    if isinstance(value, Decimal):
        return format(value or abs(value), "f")
    return json.dumps(value, ensure_ascii=False)


def _finding(kind: Kind, row: ActualDocument, *, vector: bool = False) -> Finding:
    return Finding(kind, row.table, row.document_id, row.name, row.revision, vector)


def _expected_chunk(document_id: str, chunk: Chunk) -> ExpectedChunk:
    # The content hash of a chunk is the SHA-256 of its text.
    actual = ActualChunk(chunk.chunk_id, chunk.chunk_index, chunk.content_hash, chunk.content_hash, "")
    return ExpectedChunk(chunk.chunk_id, chunk.content_hash, chunk_line(document_id, actual))


def _row_of(write: DocumentWrite) -> ActualDocument:
    key, metadata = exact_json.storable(exact_json.loads(write.key)), exact_json.storable(dict(write.metadata))
    identity = (write.document_id, write.document_id, write.table, key, write.state.newest, write.base_revision)
    return ActualDocument(*identity, write.live, write.spec_digest, metadata)


def _refused_weight(row: ActualDocument) -> int:
    return weight(document_line(replace(row, spec_digest=made_by(row.spec_digest), metadata="{}")))


def _own_row(rows: Sequence[ActualDocument]) -> ActualDocument:
    """The row whose name is its document's id, if there is one."""
    return min(rows, key=lambda row: (row.name != row.document_id, row.name))


def _equal(expected: ExpectedDocument, row: ActualDocument) -> bool:
    lines = {chunk_line(row.document_id, chunk) for chunk in row.chunks}
    same = expected.waits or (lines == {c.line for c in expected.chunks} and len(lines) == len(row.chunks))
    return same and expected.weight == weight(document_line(row)) and all(chunk.vector for chunk in row.chunks)


def _has_other_vector(expected: ExpectedDocument, row: ActualDocument) -> bool:
    known = {chunk.content_hash: chunk.vectors for chunk in expected.chunks if chunk.vectors}
    return any(c.vector and c.vector not in known.get(c.content_hash, {c.vector}) for c in row.chunks)

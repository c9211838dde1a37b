"""What a store should hold and what it holds, made comparable: lines, their weights, and the verdict on a difference. Pure.

A head and each chunk is a line of text; its weight is the first 60 bits of the line's SHA-256; the checksum of a bucket is the
sum of its lines' weights, so a store adds up by itself, in any order, and a line that stands twice shows. A bucket is the
documents whose ids begin alike: ids are digests, so buckets are even, and each is a range of an index.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

import numpy as np

from schemas.documents import BucketChecksum, Chunk, DocumentWrite, HeldChunk, HeldDocument
from transforms.documents.planning import DocumentSpec, is_refused, made_by, plan
from transforms.fold import RowState, truncated_at
from transforms.values import exact_json

DIGITS = 15
"""Hexadecimal digits of a line's digest that weigh: 60 bits, so that a weight is a bigint everywhere."""

type Kind = Literal["missing", "orphan", "stale", "duplicate", "refused"]
KINDS: tuple[Kind, ...] = ("missing", "orphan", "stale", "duplicate", "refused")
"""`refused` is no drift: the store holds what it should of a document that cannot be searched, and says so."""


@dataclass(frozen=True, slots=True)
class WantedChunk:
    """A chunk that should be there, and the vectors that would do (none known: any does)."""

    chunk_id: str
    content_hash: str
    line: str
    vectors: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class WantedDocument:
    """What the lake says a store should hold of a document.

    `open` is a document whose template waits for a pending column: it keeps whatever chunks it has (I3). `refused` is the weight
    of its head where it was refused: without the refusal itself, and without metadata.
    """

    document_id: str
    table: str
    sequence: str
    head: int
    open: bool
    chunks: tuple[WantedChunk, ...]
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """A difference; `name` and `revision` say which row of the store it was seen on, `vector` that a vector's values differ."""

    kind: Kind
    table: str
    document_id: str
    name: str
    revision: int
    vector: bool = False

    @property
    def foreign(self) -> bool:
        """Whether the row is one that no pipeline's write reaches: it can only be removed."""
        return self.kind == "orphan" or self.name != self.document_id


def weight(line: str) -> int:
    """The weight of a line."""
    return int(hashlib.sha256(line.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS], 16)


def vector_hash(vector: np.ndarray) -> str:
    """The digest of a vector's values: SHA-256 of big-endian float32, which is what PostgreSQL sends."""
    return hashlib.sha256(np.asarray(vector, ">f4").tobytes()).hexdigest()


def head_line(document: HeldDocument) -> str:
    """All of a head that a reader or the guard goes by."""
    told = (document.document_id, document.table, document.sequence, "t" if document.live else "f", document.recipe)
    return "|".join((*told, canonical(document.key), canonical(document.metadata)))


def chunk_line(document_id: str, chunk_id: str, index: int, content_hash: str, text_hash: str) -> str:
    """All of a chunk but its vector, which follows after one more bar."""
    return f"{document_id}|{chunk_id}|{index}|{content_hash}|{text_hash}"


def held_line(document_id: str, chunk: HeldChunk) -> str:
    """The line of a chunk as a store has it."""
    return chunk_line(document_id, chunk.chunk_id, chunk.chunk_index, chunk.content_hash, chunk.text_hash)


def checksums(documents: Iterable[HeldDocument], width: int) -> dict[str, BucketChecksum]:
    """Add documents up by the first `width` characters of their ids, for a store that cannot do it itself."""
    rows: dict[str, int] = defaultdict(int)
    sums: dict[str, int] = defaultdict(int)
    for document in documents:
        bucket = document.document_id[:width]
        rows[bucket] += 1 + len(document.chunks)
        sums[bucket] += weight(head_line(document))
        sums[bucket] += sum(weight(f"{held_line(document.document_id, c)}|{c.vector}") for c in document.chunks)
    return {bucket: BucketChecksum(rows[bucket], sums[bucket]) for bucket in rows}


def wanted_of(state: RowState, key: str, spec: DocumentSpec, truncated: str) -> WantedDocument | None:
    """What a store should hold of a row; None for one that a TRUNCATE covers."""
    kept = truncated_at(state, truncated)
    write = plan(None, kept, key, spec)
    if write is None or kept.newest <= truncated:
        return None
    chunks = tuple(_wanted_chunk(write.document_id, chunk) for chunk in write.chunks)
    waits = not spec.texts.isdisjoint(write.pending)
    held = _as_held(write)
    head = weight(head_line(held))
    return WantedDocument(write.document_id, write.table, kept.newest, head, waits, chunks, _refused_weight(held))


def classify_drift(
    wanted: WantedDocument | None, held: Sequence[HeldDocument], landed: Mapping[str, str], truncated: Mapping[str, str]
) -> list[Finding]:
    """Compare what should be there with what is.

    `landed` is the newest sequence the lake has of each table it feeds, `truncated` the store's own marks. What the store
    has from later than the lake is no difference: it has not landed yet.
    """
    row = _first(held) if held else None
    found = [_finding("duplicate", other) for other in held if row is not None and other.name != row.name]
    if wanted is None and row is not None:
        ahead = row.table in landed and row.sequence > landed[row.table]
        found += [] if ahead else [_finding("orphan", row)]
    elif wanted is not None and row is None:
        gone = wanted.sequence <= truncated.get(wanted.table, "")
        found += [] if gone else [Finding("missing", wanted.table, wanted.document_id, wanted.document_id, 0)]
    elif wanted is not None and row is not None and row.sequence <= wanted.sequence:
        vector = _other_vector(wanted, row)
        if is_refused(row.recipe) and not row.chunks and _refused_weight(row) == wanted.refused:
            found.append(_finding("refused", row))
        elif len({chunk.chunk_id for chunk in row.chunks}) < len(row.chunks):
            found.append(_finding("duplicate", row, vector=vector))
        elif vector or not _equal(wanted, row):
            found.append(_finding("stale", row, vector=vector))
    return found


def most_removed(documents: int) -> int:
    """How many orphans a repair removes unasked: one of a hundred documents, and three of fewer."""
    return max(3, documents // 100)


def canonical(text: str) -> str:
    """JSON as PostgreSQL writes jsonb; a text that is no JSON stays as it is."""
    try:
        return _jsonb(exact_json.loads(text))
    except ValueError:
        return text


def _jsonb(value: Any) -> str:
    if isinstance(value, dict):
        ordered = sorted(value.items(), key=lambda item: (len(item[0].encode()), item[0].encode()))
        return "{" + ", ".join(f"{_jsonb(name)}: {_jsonb(held)}" for name, held in ordered) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_jsonb, value)) + "]"
    if isinstance(value, Decimal):
        return format(value or abs(value), "f")
    return json.dumps(value, ensure_ascii=False)


def _finding(kind: Kind, row: HeldDocument, *, vector: bool = False) -> Finding:
    return Finding(kind, row.table, row.document_id, row.name, row.revision, vector)


def _wanted_chunk(document_id: str, chunk: Chunk) -> WantedChunk:
    # A chunk's name by content is the SHA-256 of its text.
    line = chunk_line(document_id, chunk.chunk_id, chunk.chunk_index, chunk.content_hash, chunk.content_hash)
    return WantedChunk(chunk.chunk_id, chunk.content_hash, line)


def _as_held(write: DocumentWrite) -> HeldDocument:
    key, metadata = exact_json.storable(exact_json.loads(write.key)), exact_json.storable(dict(write.metadata))
    told = (write.document_id, write.document_id, write.table, key, write.state.newest, write.base_revision)
    return HeldDocument(*told, write.live, write.recipe, metadata)


def _refused_weight(row: HeldDocument) -> int:
    return weight(head_line(replace(row, recipe=made_by(row.recipe), metadata="{}")))


def _first(held: Sequence[HeldDocument]) -> HeldDocument:
    """The row that bears its document's own name, if one does."""
    return min(held, key=lambda row: (row.name != row.document_id, row.name))


def _equal(wanted: WantedDocument, row: HeldDocument) -> bool:
    lines = {held_line(row.document_id, chunk) for chunk in row.chunks}
    same = wanted.open or (lines == {c.line for c in wanted.chunks} and len(lines) == len(row.chunks))
    return same and wanted.head == weight(head_line(row)) and all(chunk.vector for chunk in row.chunks)


def _other_vector(wanted: WantedDocument, row: HeldDocument) -> bool:
    known = {chunk.content_hash: chunk.vectors for chunk in wanted.chunks if chunk.vectors}
    return any(c.vector and c.vector not in known.get(c.content_hash, {c.vector}) for c in row.chunks)

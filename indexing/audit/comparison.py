"""A store compared with what the lake says it should hold: the stages of a Spark job; no Spark in here.

Each is a function for `mapInArrow` and opens the store for its partition. The comparison is `sinks.digests`'s; what repairs
is every writer's guarded write, told to take over nothing that is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import astuple, dataclass, replace
from itertools import batched
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from embeddings import open_embedder
from embeddings.vectors import is_usable
from indexing.bulk import DOCUMENTS_AT_ONCE, Stage, StoreSettings, column, states_of
from indexing.optimistic_writer import OptimisticWriter
from schemas.documents import ActualChunk, ActualDocument
from sinks.digests import ExpectedChunk, ExpectedDocument, Finding, classify_drift, expected_of, vector_hash
from transforms.documents.planning import document_id, plan
from transforms.fold import EMPTY, join, truncated_at

if TYPE_CHECKING:
    from schemas.documents import DocumentWrite, StoredDocument
    from sinks.protocol import DocumentStore, StoredVectors
    from transforms.documents.planning import DocumentSpec
    from transforms.fold import RowState

_TEXT: pa.DataType = pa.string()
_LONG: pa.DataType = pa.int64()
_BOOL: pa.DataType = pa.bool_()
_CHUNKS: pa.DataType = pa.list_(pa.struct([("chunk_id", _TEXT), ("content_hash", _TEXT), ("line", _TEXT)]))
WANTED = pa.schema([
    ("document_id", _TEXT), ("table_name", _TEXT), ("sequence", _TEXT), ("head", _LONG), ("open", _BOOL), ("chunks", _CHUNKS),
    ("refused", _LONG),
])  # fmt: skip
"""`ExpectedDocument`, but for the vectors that would do."""
HELD = pa.schema([("document_id", _TEXT), ("held", _TEXT)])
"""`ActualDocument` as JSON."""
DIGESTS = pa.schema([("content_hash", _TEXT), ("vector", _TEXT)])
FOUND = pa.schema([
    ("kind", _TEXT), ("table_name", _TEXT), ("document_id", _TEXT), ("name", _TEXT), ("revision", _LONG), ("vector", _BOOL),
])  # fmt: skip
"""`Finding`."""
REPAIRED = pa.schema([(name, _LONG) for name in ("repaired", "cached", "embedded", "left_out")])
REMOVED = pa.schema([("removed", _LONG)])
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class Comparison:
    """What a comparison goes by beside the rows; plain data, so it pickles."""

    width: int
    """Characters of a document's id that name its bucket."""
    vectors: bool
    """Whether the values of vectors count."""
    landed: Mapping[str, str]
    """The newest sequence the lake has, of each table that makes documents."""
    truncated: Mapping[str, str]
    """The newest TRUNCATE the store knows, by table."""


def want_stage(spec: DocumentSpec, truncated: str) -> Stage:
    """From STATES of one table to WANTED."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        wanted = (expected_of(state, key, spec, truncated) for key, state in states_of(batches))
        for some in batched(filter(None, wanted), _ROWS_AT_ONCE):
            yield pa.RecordBatch.from_pylist([_wanted_row(each) for each in some], WANTED)

    return run


def digest_stage(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """From `content_hash, embedding` (little-endian float32) to DIGESTS of those that a store would be given."""
    for batch in batches:
        cached = zip(column(batch, "content_hash"), column(batch, "embedding"), strict=True)
        usable = [(name, vector) for name, raw in cached if is_usable(vector := np.frombuffer(raw, "<f4"))]
        rows = [{"content_hash": name, "vector": vector_hash(vector)} for name, vector in usable]
        yield pa.RecordBatch.from_pylist(rows, DIGESTS)


def held_stage(settings: StoreSettings, comparison: Comparison) -> Stage:
    """From `bucket` to HELD."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with closing(settings.open()) as sink:
            for batch in batches:
                for bucket in column(batch, "bucket"):
                    documents = sink.documents_in(bucket, comparison.width, vectors=comparison.vectors)
                    for some in batched(documents, _ROWS_AT_ONCE):
                        settings.on_done(sum(1 + len(d.chunks) for d in some))
                        rows = [{"document_id": d.document_id, "held": json.dumps(astuple(d))} for d in some]
                        yield pa.RecordBatch.from_pylist(rows, HELD)

    return run


def judge_stage(comparison: Comparison) -> Stage:
    """From WANTED (chunks with the `vectors` that would do) and the `held` rows of the same document to FOUND."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            found = [_found_row(each) for row in batch.to_pylist() for each in _judged(row, comparison)]
            yield pa.RecordBatch.from_pylist(found, FOUND)

    return run


def repair_stage(settings: StoreSettings, spec: DocumentSpec) -> Stage:
    """From STATES of one table, with `vector` (whether to put vectors back as well), to REPAIRED."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        embedder = open_embedder(settings.embedding)
        with closing(settings.open()) as sink, sink.bulk_load():
            for batch in batches:
                states = dict(states_of([batch]))
                altered = {
                    key for key, vector in zip(column(batch, "_key"), column(batch, "vector"), strict=True) if vector
                }
                _put_vectors_back(sink, settings, spec, {key: states[key] for key in altered})
                for some in batched(states.items(), DOCUMENTS_AT_ONCE):
                    writer = OptimisticWriter(embedder, settings.cache, embedder.max_items)
                    left_out = len(writer.write(sink, RepairedRows(spec, dict(some))))
                    counts = writer.counts
                    told = (counts["writes"], counts["texts cached"], counts["texts embedded"], left_out)
                    settings.on_done(len(some))
                    yield pa.RecordBatch.from_pylist([dict(zip(REPAIRED.names, told, strict=True))], REPAIRED)

    return run


def remove_stage(settings: StoreSettings) -> Stage:
    """From FOUND to REMOVED: rows that no write of a pipeline reaches."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with closing(settings.open()) as sink:
            for batch in batches:
                sink.remove(dict(zip(column(batch, "name"), column(batch, "revision"), strict=True)))
                yield pa.RecordBatch.from_pylist([{"removed": batch.num_rows}], REMOVED)

    return run


@dataclass(frozen=True, slots=True)
class RepairedRows:
    """States by key of one table, to be written whole over what the store holds (`indexing.optimistic_writer.Work`)."""

    spec: DocumentSpec
    states: Mapping[str, RowState]

    def plan(self, sink: DocumentStore) -> list[DocumentWrite]:
        """Join the states with the store's, and write head and chunks anew; a document that waits for a column keeps its own."""
        stored = sink.read([document_id(self.spec.table, key) for key in self.states])
        truncated = sink.truncations().get(self.spec.table, "")
        writes = [
            self._write(key, told, stored.get(document_id(self.spec.table, key)), truncated)
            for key, told in self.states.items()
        ]
        return [write for write in writes if write is not None]

    def touching(self, rows: Iterable[tuple[str, str]]) -> RepairedRows | None:
        """The states of these rows."""
        left = {key: self.states[key] for table, key in rows if table == self.spec.table and key in self.states}
        return RepairedRows(self.spec, left) if left else None

    def _write(self, key: str, told: RowState, held: StoredDocument | None, truncated: str) -> DocumentWrite | None:
        if held is None and told.newest <= truncated:
            return None
        # Of two values of one rank the lake's counts: the store's may have been altered.
        state = truncated_at(join(told, held.state if held else EMPTY), truncated)
        anew = replace(held, state=EMPTY, chunks=()) if held else None
        write = plan(anew, state, key, self.spec)
        if write is None or held is None:
            return write
        waits = not self.spec.texts.isdisjoint(write.unresolved)
        places = tuple({chunk.chunk_id for chunk in held.chunks})
        return replace(write, stored_chunk_ids=places, dropped=() if waits else places)


def _put_vectors_back(
    sink: StoredVectors, settings: StoreSettings, spec: DocumentSpec, states: Mapping[str, RowState]
) -> None:
    wanted = [expected_of(state, key, spec, "") for key, state in states.items()]
    hashes = {chunk.content_hash for each in wanted if each for chunk in each.chunks}
    if hashes and (vectors := settings.cache.get(hashes)):
        sink.keep_vectors(vectors, replace=True)


def _wanted_row(wanted: ExpectedDocument) -> dict[str, Any]:
    chunks = [{"chunk_id": c.chunk_id, "content_hash": c.content_hash, "line": c.line} for c in wanted.chunks]
    row = (
        wanted.document_id,
        wanted.table,
        wanted.sequence,
        wanted.weight,
        wanted.waits,
        chunks,
        wanted.refused_weight,
    )
    return dict(zip(WANTED.names, row, strict=True))


def _judged(row: Mapping[str, Any], comparison: Comparison) -> list[Finding]:
    wanted = None
    if row["head"] is not None:
        chunks = tuple(
            ExpectedChunk(c["chunk_id"], c["content_hash"], c["line"], frozenset(c["vectors"] or ()))
            for c in row["chunks"] or ()
        )
        place = (row["document_id"], row["table_name"], row["sequence"])
        wanted = ExpectedDocument(*place, row["head"], row["open"], chunks, row["refused"])
    held = [_restored(json.loads(text)) for text in row["held"] or ()]
    return classify_drift(wanted, held, comparison.landed, comparison.truncated)


def _restored(told: list[Any]) -> ActualDocument:
    *head, chunks = told
    return replace(ActualDocument(*head), chunks=tuple(ActualChunk(*chunk) for chunk in chunks))


def _found_row(found: Finding) -> dict[str, Any]:
    told = (found.kind, found.table, found.document_id, found.name, found.revision, found.vector)
    return dict(zip(FOUND.names, told, strict=True))

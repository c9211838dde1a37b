"""A store compared with the lake, and repaired: the stages of a Spark job, without Spark.

Each is a function for `mapInArrow` and opens the store for its partition. `sinks.digests` compares; a repair is the guarded
write of every writer, planned as if the store had no chunks of the document.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import astuple, dataclass, replace
from itertools import batched
from typing import Any

import numpy as np
import pyarrow as pa

from embeddings import open_embedder
from embeddings.vectors import is_usable
from indexing.bulk import DOCUMENTS_AT_ONCE, Stage, StoreSettings, column, states_of
from indexing.missing_vectors import MissingVectors
from indexing.optimistic_writer import OptimisticWriter
from schemas.documents import ActualChunk, ActualDocument, DocumentWrite, StoredDocument
from sinks.digests import ExpectedChunk, ExpectedDocument, Finding, classify_drift, expected_of, vector_hash
from sinks.protocol import DocumentStore, StoredVectors
from transforms.documents.planning import DocumentSpec, document_id, plan
from transforms.fold import EMPTY, RowState, join, truncated_at

_TEXT: pa.DataType = pa.string()
_LONG: pa.DataType = pa.int64()
_BOOL: pa.DataType = pa.bool_()
_CHUNKS: pa.DataType = pa.list_(pa.struct([("chunk_id", _TEXT), ("content_hash", _TEXT), ("line", _TEXT)]))
WANTED = pa.schema([
    ("document_id", _TEXT), ("table_name", _TEXT), ("sequence", _TEXT), ("head", _LONG), ("open", _BOOL), ("chunks", _CHUNKS),
    ("refused", _LONG),
])  # fmt: skip
"""`ExpectedDocument`, but for the valid vectors."""
STORED = pa.schema([("document_id", _TEXT), ("stored", _TEXT)])
"""`ActualDocument` as JSON."""
DIGESTS = pa.schema([("content_hash", _TEXT), ("vector", _TEXT)])
DRIFT = pa.schema([
    ("kind", _TEXT), ("table_name", _TEXT), ("document_id", _TEXT), ("name", _TEXT), ("revision", _LONG), ("vector", _BOOL),
])  # fmt: skip
"""`Finding`."""
REPAIRED = pa.schema([(name, _LONG) for name in ("repaired", "cached", "embedded", "left_out")])
REMOVED = pa.schema([("removed", _LONG)])
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class Comparison:
    """The parameters of a comparison; plain data, so it pickles."""

    width: int
    """Characters of a document's id that name its bucket."""
    vectors: bool
    """Whether the values of vectors count."""
    landed: Mapping[str, str]
    """The newest sequence the lake has, of each table that makes documents."""
    truncated: Mapping[str, str]
    """The newest TRUNCATE the store knows, by table."""


def wanted_stage(spec: DocumentSpec, truncated: str) -> Stage:
    """From STATES of one table to WANTED."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        wanted = (expected_of(state, key, spec, truncated) for key, state in states_of(batches))
        for documents in batched(filter(None, wanted), _ROWS_AT_ONCE):
            yield pa.RecordBatch.from_pylist([_wanted_row(document) for document in documents], WANTED)

    return run


def digest_stage(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """From `content_hash, embedding` (little-endian float32) to DIGESTS of the vectors that a store accepts."""
    for batch in batches:
        cached = zip(column(batch, "content_hash"), column(batch, "embedding"), strict=True)
        usable = [(name, vector) for name, raw in cached if is_usable(vector := np.frombuffer(raw, "<f4"))]
        rows = [{"content_hash": name, "vector": vector_hash(vector)} for name, vector in usable]
        yield pa.RecordBatch.from_pylist(rows, DIGESTS)


def stored_stage(settings: StoreSettings, comparison: Comparison) -> Stage:
    """From `bucket` to STORED."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with closing(settings.open()) as sink:
            for batch in batches:
                for bucket in column(batch, "bucket"):
                    documents = sink.documents_in(bucket, comparison.width, vectors=comparison.vectors)
                    for part in batched(documents, _ROWS_AT_ONCE):
                        settings.on_done(sum(1 + len(d.chunks) for d in part))
                        rows = [{"document_id": d.document_id, "stored": json.dumps(astuple(d))} for d in part]
                        yield pa.RecordBatch.from_pylist(rows, STORED)

    return run


def drift_stage(comparison: Comparison) -> Stage:
    """From WANTED (chunks with their valid `vectors`) and the `stored` rows of the same document to DRIFT."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = [_drift_row(finding) for row in batch.to_pylist() for finding in _findings(row, comparison)]
            yield pa.RecordBatch.from_pylist(rows, DRIFT)

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
                for part in batched(states.items(), DOCUMENTS_AT_ONCE):
                    writer = OptimisticWriter(MissingVectors(embedder, settings.cache, embedder.max_items))
                    left_out = len(writer.write(sink, RepairedRows(spec, dict(part))))
                    counts = writer.counts
                    repaired = (counts["writes"], counts["texts cached"], counts["texts embedded"], left_out)
                    settings.on_done(len(part))
                    yield pa.RecordBatch.from_pylist([dict(zip(REPAIRED.names, repaired, strict=True))], REPAIRED)

    return run


def remove_stage(settings: StoreSettings) -> Stage:
    """From DRIFT to REMOVED: rows that no write of a pipeline reaches."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with closing(settings.open()) as sink:
            for batch in batches:
                sink.remove(dict(zip(column(batch, "name"), column(batch, "revision"), strict=True)))
                yield pa.RecordBatch.from_pylist([{"removed": batch.num_rows}], REMOVED)

    return run


@dataclass(frozen=True, slots=True)
class RepairedRows:
    """States by key of one table, to replace the stored documents whole (`indexing.optimistic_writer.Work`)."""

    spec: DocumentSpec
    states: Mapping[str, RowState]

    def plan(self, sink: DocumentStore) -> list[DocumentWrite]:
        """Join the states with the store's, and write row and chunks anew; an unresolved column keeps a document's chunks."""
        stored = sink.read([document_id(self.spec.table, key) for key in self.states])
        truncated = sink.truncations().get(self.spec.table, "")
        writes = [
            self._write(key, state, stored.get(document_id(self.spec.table, key)), truncated)
            for key, state in self.states.items()
        ]
        return [write for write in writes if write is not None]

    def touching(self, rows: Iterable[tuple[str, str]]) -> RepairedRows | None:
        """The states of these rows."""
        left = {key: self.states[key] for table, key in rows if table == self.spec.table and key in self.states}
        return RepairedRows(self.spec, left) if left else None

    def _write(self, key: str, wanted: RowState, stored: StoredDocument | None, truncated: str) -> DocumentWrite | None:
        if stored is None and wanted.newest <= truncated:
            return None
        # Of two values of one rank the lake's counts: the store's may have been altered.
        state = truncated_at(join(wanted, stored.state if stored else EMPTY), truncated)
        anew = replace(stored, state=EMPTY, chunks=()) if stored else None
        write = plan(anew, state, key, self.spec)
        if write is None or stored is None:
            return write
        waits = not self.spec.texts.isdisjoint(write.unresolved)
        chunk_ids = tuple({chunk.chunk_id for chunk in stored.chunks})
        return replace(write, stored_chunk_ids=chunk_ids, dropped=() if waits else chunk_ids)


def _put_vectors_back(
    sink: StoredVectors, settings: StoreSettings, spec: DocumentSpec, states: Mapping[str, RowState]
) -> None:
    wanted = (expected_of(state, key, spec, "") for key, state in states.items())
    hashes = {chunk.content_hash for document in wanted if document for chunk in document.chunks}
    if hashes and (vectors := settings.cache.get(hashes)):
        sink.keep_vectors(vectors, replace=True)


def _wanted_row(wanted: ExpectedDocument) -> dict[str, Any]:
    chunks = [{"chunk_id": c.chunk_id, "content_hash": c.content_hash, "line": c.line} for c in wanted.chunks]
    columns = (
        wanted.document_id,
        wanted.table,
        wanted.sequence,
        wanted.weight,
        wanted.waits,
        chunks,
        wanted.refused_weight,
    )
    return dict(zip(WANTED.names, columns, strict=True))


def _findings(row: Mapping[str, Any], comparison: Comparison) -> list[Finding]:
    wanted = None
    if row["head"] is not None:
        chunks = tuple(
            ExpectedChunk(c["chunk_id"], c["content_hash"], c["line"], frozenset(c["vectors"] or ()))
            for c in row["chunks"] or ()
        )
        place = (row["document_id"], row["table_name"], row["sequence"])
        wanted = ExpectedDocument(*place, row["head"], row["open"], chunks, row["refused"])
    stored = [_stored_document(json.loads(text)) for text in row["stored"] or ()]
    return classify_drift(wanted, stored, comparison.landed, comparison.truncated)


def _stored_document(values: list[Any]) -> ActualDocument:
    *columns, chunks = values
    return replace(ActualDocument(*columns), chunks=tuple(ActualChunk(*chunk) for chunk in chunks))


def _drift_row(finding: Finding) -> dict[str, Any]:
    return dict(zip(DRIFT.names, astuple(finding), strict=True))

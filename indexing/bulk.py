"""A bulk load from the lake: the stages of a Spark job that plan, keep vectors and write, without Spark.

Each is a function for `mapInArrow` and opens the store for its partition. Run again, it leaves what the store has already;
the guard decides between it and live writers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import batched
from typing import Any

import numpy as np
import pyarrow as pa

from embeddings import EmbeddingConfig, open_embedder
from embeddings.vectors import is_usable
from indexing.missing_vectors import MissingVectors, VectorCache
from indexing.optimistic_writer import FoldedRows, OptimisticWriter
from sinks import SinkConfig, open_sink
from sinks.protocol import Sink, WritableStore
from transforms.documents.chunking import tokens
from transforms.documents.planning import DocumentSpec, plan
from transforms.fold import RowState, encode, restore, truncated_at
from transforms.values import exact_json

type Stage = Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]

PLANNED = "_key string, _state string, missing array<struct<content_hash:string,chunk_text:string>>"
"""A row; its state, NULL if the store has it already; its chunks that the store has no vector for."""
WRITTEN = "written bigint, cached bigint, embedded bigint, left_out bigint"
"""Documents; vectors that were missing at the write only, from the cache and from the model; documents that the model or the
store refuses."""
KEPT = "kept bigint, refused bigint"
"""Vectors that were kept in the store, and texts that the model refuses."""

TEXTS = "content_hash string, tokens bigint, chunk_text string"
"""A chunk, with its estimated tokens."""

DOCUMENTS_AT_ONCE = 200
VECTORS_AT_ONCE = 500

_TEXT = pa.struct([("content_hash", pa.string()), ("chunk_text", pa.string())])
_STRING: pa.DataType = pa.string()
_LONG: pa.DataType = pa.int64()
_TEXTS = pa.schema([("content_hash", _STRING), ("tokens", _LONG), ("chunk_text", _STRING)])
_PLANNED = pa.schema([("_key", pa.string()), ("_state", pa.string()), ("missing", pa.list_(_TEXT))])


@dataclass(frozen=True)
class StoreSettings:
    """What a worker opens a store with; plain configuration, so it pickles."""

    sink: SinkConfig
    embedding: EmbeddingConfig
    cache: VectorCache
    on_done: Callable[[int], None]
    """Called with the number of rows, or vectors, that are done."""

    def open(self) -> Sink:
        """Open the store; nothing is connected yet."""
        embedder = open_embedder(self.embedding)
        return open_sink(self.sink, embedder.fingerprint, embedder.dimensions)


@dataclass(frozen=True)
class BulkSettings(StoreSettings):
    """The same, for the documents of one table."""

    spec: DocumentSpec


def plan_stage(settings: BulkSettings) -> Stage:
    """From STATES of one table to PLANNED: the rows to write, and their missing vectors."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with closing(settings.open()) as sink:
            for rows in batched(states_of(batches), DOCUMENTS_AT_ONCE):
                yield pa.RecordBatch.from_pylist(_planned(dict(rows), settings, sink), _PLANNED)

    return run


def text_stage(spec: DocumentSpec, truncated: str) -> Stage:
    """From STATES of one table to TEXTS: every chunk that a store should have; it opens no store."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for rows in batched(states_of(batches), DOCUMENTS_AT_ONCE):
            newer = ((key, state) for key, state in rows if state.newest > truncated)
            writes = (plan(None, truncated_at(state, truncated), key, spec) for key, state in newer)
            texts = [
                (c.content_hash, tokens(c.chunk_text), c.chunk_text) for write in writes if write for c in write.chunks
            ]
            yield pa.RecordBatch.from_pylist([dict(zip(_TEXTS.names, text, strict=True)) for text in texts], _TEXTS)

    return run


def cached_vectors_stage(settings: BulkSettings) -> Stage:
    """From `content_hash, embedding` (float32 bytes) to KEPT: vectors of the cache into the store."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with closing(settings.open()) as sink:
            for part in _parts(batches, VECTORS_AT_ONCE):
                cached = zip(column(part, "content_hash"), column(part, "embedding"), strict=True)
                usable = {name: vector for name, raw in cached if is_usable(vector := np.frombuffer(raw, "<f4"))}
                sink.keep_vectors(usable)
                yield _counts(KEPT, settings, part.num_rows, kept=len(usable))

    return run


def peer_vectors_stage(settings: StoreSettings, peers: VectorCache) -> Stage:
    """From `content_hash` to those whose vector a peer had; it is in cache and store then."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with closing(settings.open()) as sink:
            for part in _parts(batches, VECTORS_AT_ONCE):
                vectors = peers.get(column(part, "content_hash"))
                sink.keep_vectors(vectors)
                settings.on_done(len(vectors))
                yield pa.RecordBatch.from_pydict({"content_hash": pa.array(sorted(vectors), pa.string())})

    return run


def new_vectors_stage(settings: BulkSettings) -> Stage:
    """From `content_hash, embedding` (floats; NULL for a refused text) to KEPT: vectors of the model into cache and store.

    Each batch is kept as it comes: a kill loses the requests in flight, and the batches between Spark's two stages.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with closing(settings.open()) as sink:
            for batch in batches:
                names = column(batch, "content_hash")
                embedded = zip(names, batch.column("embedding"), strict=True)
                vectors = {h: np.asarray(v.values, np.float32) for h, v in embedded if v.is_valid}
                if vectors:
                    settings.cache.add(vectors)
                    sink.keep_vectors(vectors)
                yield _counts(KEPT, settings, len(names), kept=len(vectors), refused=len(names) - len(vectors))

    return run


def write_stage(settings: BulkSettings) -> Stage:
    """From STATES of one table to WRITTEN: the guarded write, planned on the stored documents of that moment."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        embedder = open_embedder(settings.embedding)
        with closing(settings.open()) as sink, sink.bulk_load():
            for rows in batched(states_of(batches), DOCUMENTS_AT_ONCE):
                writer = OptimisticWriter(MissingVectors(embedder, settings.cache, embedder.max_items))
                left_out = len(writer.write(sink, FoldedRows(settings.spec, dict(rows))))
                texts = {"cached": writer.counts["texts cached"], "embedded": writer.counts["texts embedded"]}
                yield _counts(WRITTEN, settings, len(rows), written=writer.counts["writes"], left_out=left_out, **texts)

    return run


def states_of(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, RowState]]:
    """The keys and states of STATES."""
    for batch in batches:
        for key, state in zip(column(batch, "_key"), column(batch, "_state"), strict=True):
            yield key, restore(exact_json.loads(state))


def column(batch: pa.RecordBatch, name: str) -> list[Any]:
    """One column's values."""
    return batch.column(name).to_pylist()


def _parts(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for at in range(0, batch.num_rows, rows):
            yield batch.slice(at, rows)


def _planned(states: Mapping[str, Any], settings: BulkSettings, sink: WritableStore) -> list[dict[str, Any]]:
    writes = {write.key: write for write in FoldedRows(settings.spec, states).plan(sink)}
    texts = {chunk.content_hash: chunk.chunk_text for write in writes.values() for chunk in write.added}
    missing = sink.missing_vectors(sorted(texts)) if texts else set()
    rows = []
    for key, state in states.items():
        row: dict[str, Any] = {"_key": key, "_state": None, "missing": []}
        if key in writes:
            wanted = sorted({chunk.content_hash for chunk in writes[key].added} & missing)
            row["_state"] = exact_json.dumps(encode(state))
            row["missing"] = [{"content_hash": name, "chunk_text": texts[name]} for name in wanted]
        rows.append(row)
    return rows


def _counts(names: str, settings: BulkSettings, done: int, **counts: int) -> pa.RecordBatch:
    settings.on_done(done)
    columns = [name.split()[0] for name in names.split(", ")]
    return pa.RecordBatch.from_pydict({name: pa.array([counts.get(name, 0)], pa.int64()) for name in columns})

"""What tests feed a store with, and how they compare what a reader sees of it with the source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embeddings.protocol import Embedding, EmbeddingCounts, EmbeddingRejected, Vector
from indexing.indexer import Indexer
from schemas.changes import Change
from schemas.documents import Chunk, DocumentWrite
from schemas.tables import ChunkConfig, DocumentConfig
from sinks.protocol import Sink
from tests.history import TABLE, ModelTable, as_record, key_of
from transforms.context import DecodeContext, TableContext
from transforms.documents.planning import DocumentSpec, digest, document_id
from transforms.fold import Rows, RowState, apply

DIMENSIONS = 8
CONTEXT = DecodeContext("debezium", {TABLE: TableContext(TABLE, ("id",))})
DOCUMENT = DocumentConfig(template="{body}", metadata=("a",), chunk=ChunkConfig(max_tokens=16))
SPECS = {TABLE: DocumentSpec(TABLE, DOCUMENT)}

type Contents = dict[str, tuple[dict[str, Any], list[tuple[int, str, list[float]]]]]


def vector_of(text: str) -> Vector:
    vector = np.random.default_rng(int(digest(text), 16)).standard_normal(DIMENSIONS).astype(np.float32)
    return vector / np.linalg.norm(vector)


class CountingEmbedder:
    """An embedder in this process: vectors from the text alone, every text counted; `refused` marks what it rejects."""

    fingerprint, dimensions, max_items, max_tokens = "model=test", DIMENSIONS, 4, 8192

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed_documents(self, texts: Sequence[str]) -> list[Embedding]:
        self.texts += texts
        return [EmbeddingRejected("MODEL_REFUSED_TEXT", "no") if "refused" in t else vector_of(t) for t in texts]

    def embed_query(self, text: str) -> Vector:
        return vector_of(text)

    def check(self) -> None: ...

    def counts(self) -> EmbeddingCounts:
        return EmbeddingCounts(texts=len(self.texts))


class Fed:
    """An indexer that is fed changes as Debezium would tell them."""

    def __init__(self, *sinks: Sink) -> None:
        self.sinks, self.embedder = sinks, CountingEmbedder()
        self.change_recipe(SPECS[TABLE])

    def change_recipe(self, spec: DocumentSpec) -> None:
        """Start again with another one."""
        self.indexer = Indexer(CONTEXT, {TABLE: spec}, self.sinks, self.embedder, texts_at_once=8)

    def __call__(self, changes: Sequence[Change]) -> Any:
        return self.indexer.index([as_record(change) for change in changes])


def one_row() -> ModelTable:
    table = ModelTable()
    table.insert(1, "x")
    return table


def row_state(change: Change) -> RowState:
    """The state of a row that one change told."""
    rows = Rows(lambda _: None)
    apply(rows, change)
    return rows[change.key]


def write_of(number: int, chunk_hash: str = "h") -> DocumentWrite:
    """The first write of a document with one chunk."""
    table = ModelTable()
    table.insert(number, "x")
    name = document_id(TABLE, key_of(number))
    chunk = Chunk(f"{name}-0", 0, chunk_hash, "text")
    return DocumentWrite(
        name, TABLE, key_of(number), 0, row_state(table.changes[0]), "r", live=True, chunks=(chunk,), added=(chunk,)
    )


def expected(table: ModelTable) -> Contents:
    return {
        key_of(number): ({"a": row["a"]}, [(0, str(row["body"]), vector_of(str(row["body"])).tolist())])
        for number, row in table.rows.items()
    }


def same(seen: Contents, wanted: Contents) -> bool:
    def flat(contents: Contents) -> dict[str, Any]:
        return {k: (metadata, [(i, t) for i, t, _ in chunks]) for k, (metadata, chunks) in contents.items()}

    vectors = all(
        np.allclose(one[2], other[2], atol=1e-6)
        for key in seen
        if key in wanted
        for one, other in zip(seen[key][1], wanted[key][1], strict=False)
    )
    return flat(seen) == flat(wanted) and vectors

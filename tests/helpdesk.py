"""Writes the helpdesk into a vector store without a stream, for tests and measurements of search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from embeddings.onnx.config import LocalEmbeddingConfig
from indexing.missing_vectors import MemoryCache, MissingVectors, VectorCache
from indexing.optimistic_writer import ChangedRows, OptimisticWriter
from local_stack.demo.helpdesk import TABLES, rows
from local_stack.models.minilm import MAX_TOKENS, minilm_folder
from schemas.changes import Change, Op
from schemas.tables import ChunkConfig, DocumentConfig
from transforms.context import key_text
from transforms.documents.planning import DocumentSpec
from transforms.positions.sequence import SEQUENCE_DIGITS

if TYPE_CHECKING:
    from embeddings.protocol import Embedder
    from sinks.protocol import Sink

LOCAL = LocalEmbeddingConfig(
    type="local", path=minilm_folder(), model="all-MiniLM-L6-v2", dimensions=384, max_tokens=MAX_TOKENS, threads=1
)
_CHUNK = ChunkConfig(max_tokens=240, overlap=32)
SPECS = {
    "public.articles": DocumentSpec(
        "public.articles",
        DocumentConfig(template="{title}\n\n{body}", chunk=_CHUNK, metadata=("area", "status", "updated_at")),
    ),
    "public.tickets": DocumentSpec(
        "public.tickets",
        DocumentConfig(
            template="{subject}\n\n{body}", chunk=_CHUNK, metadata=("status", "priority", "customer_id", "updated_at")
        ),
    ),
}
"""As in job_configs/helpdesk.yaml."""
_REQUESTS_AT_ONCE = 32
_CACHES: dict[str, MemoryCache] = {}
"""By model: what one store was filled with is not embedded again for the next."""


def fill(sink: Sink, embedder: Embedder) -> None:
    """Write every row of the helpdesk; idempotent."""
    tables = {f"public.{table}": rows(table) for table in TABLES}
    changes = {name: [_change(name, row, "u", 1) for row in own] for name, own in tables.items()}
    _apply(sink, embedder, changes, SPECS, _CACHES.setdefault(embedder.fingerprint, MemoryCache()))


def document_spec(table: str) -> DocumentSpec:
    """The documents of a table with `title` and `body`, cut as the helpdesk's."""
    return DocumentSpec(table, DocumentConfig(template="{title}\n\n{body}", chunk=_CHUNK))


def put(
    sink: Sink,
    embedder: Embedder,
    table: str,
    source_rows: Iterable[Mapping[str, Any]],
    *,
    at: int = 1,
    specs: Mapping[str, DocumentSpec] = SPECS,
) -> None:
    """Write rows as of a position in the source's log."""
    changes = {table: [_change(table, row, "u", at) for row in source_rows]}
    _apply(sink, embedder, changes, specs, MemoryCache())


def delete(
    sink: Sink,
    embedder: Embedder,
    table: str,
    source_rows: Iterable[Mapping[str, Any]],
    *,
    at: int,
    specs: Mapping[str, DocumentSpec] = SPECS,
) -> None:
    """Delete rows as of a position in the source's log."""
    changes = {table: [_change(table, row, "d", at) for row in source_rows]}
    _apply(sink, embedder, changes, specs, MemoryCache())


def _change(table: str, row: Mapping[str, Any], op: Op, at: int) -> Change:
    key = key_text(["id"], row)
    assert key is not None
    columns = {} if op == "d" else dict(row)
    return Change(table, op, f"{at:0{SEQUENCE_DIGITS}x}", key, columns, complete=op != "d")


def _apply(
    sink: Sink,
    embedder: Embedder,
    changes: Mapping[str, list[Change]],
    specs: Mapping[str, DocumentSpec],
    cache: VectorCache,
) -> None:
    writer = OptimisticWriter(MissingVectors(embedder, cache, _REQUESTS_AT_ONCE * embedder.max_items))
    left_out = writer.write(sink, ChangedRows(changes, specs) if any(changes.values()) else None)
    if left_out:
        raise RuntimeError(f"{len(left_out)} documents are refused")

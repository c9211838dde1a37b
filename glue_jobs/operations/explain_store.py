"""What changes would do in one vector store, by the store's own reads and the planner of every writer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from glue_jobs.operations.explained import Step
from indexing.optimistic_writer import ChangedRows
from lake.embedding_cache import EmbeddingCache
from schemas.errors import PipelineError
from sinks import SinkConfig, open_sink
from transforms.documents.planning import document_id, is_refused
from transforms.documents.template import render
from transforms.fold import in_order, keys_of

if TYPE_CHECKING:
    from embeddings import Embedder
    from schemas.changes import Change
    from schemas.documents import DocumentWrite, StoredDocument
    from sinks.protocol import Sink
    from transforms.documents.planning import DocumentSpec


class _EmptyStore:
    """A store that holds nothing, in place of one that does not answer."""

    def read(self, _document_ids: Sequence[str]) -> dict[str, StoredDocument]:
        return {}

    def read_with_truncations(self, _document_ids: Sequence[str]) -> tuple[dict[str, StoredDocument], dict[str, str]]:
        return {}, {}


class StoreSteps:
    """The steps of one store: its index version of the configured model."""

    def __init__(self, config: SinkConfig, embedder: Embedder, lake: str) -> None:
        """Connect to nothing yet."""
        self._name = config.name
        self._embedder = embedder
        self._cache = EmbeddingCache(lake, embedder.fingerprint)
        self._sink: Sink = open_sink(config, embedder.fingerprint, embedder.dimensions)

    def step(self, spec: DocumentSpec, history: Sequence[Change], changes: Sequence[Change]) -> Step:
        """What the changes of a record would do; `history` has the changes of the records before it, and these."""
        spec, keys = spec.within(self._embedder.max_tokens), keys_of(changes)
        rows = [change for change in history if change.op != "t" and keys_of([change]) & keys]
        work = ChangedRows({spec.table: in_order(rows)}, {spec.table: spec})
        names = {document_id(spec.table, key) for key in keys}
        note: tuple[str, ...] = ()
        is_reached = True
        try:
            stored = self._sink.read(sorted(names))
            writes = work.plan(self._sink)
        except PipelineError as error:
            empty: Any = _EmptyStore()
            stored, writes, is_reached = {}, work.plan(empty), False
            note = (f"the store cannot be asked, so this is for a store without the row: {error.message}",)
        planned = [self._planned(write, spec, is_reached=is_reached) for write in writes if write.document_id in names]
        if not planned:
            return Step(f"store {self._name}", "no write", (*_unchanged(stored), *note))
        outcome = "; ".join(str(plan.pop("outcome")) for plan in planned)
        why = tuple(reason for plan in planned for reason in plan.pop("why"))
        return Step(f"store {self._name}", outcome, (*why, *note), {"documents": planned})

    def _planned(self, write: DocumentWrite, spec: DocumentSpec, *, is_reached: bool) -> dict[str, Any]:
        """One planned write, its guard and its vectors."""
        why = [_guard(write)]
        if write.unresolved:
            why.append(f"pending: {', '.join(write.unresolved)}" + ("" if write.chunks else "; the older chunks stay"))
        if not write.live:
            outcome = "the document goes, its tombstone stays"
        elif write.refused:
            outcome = f"the document is refused: {write.refused.condition}"
            why.append(write.refused.message)
        elif not write.texts_changed:
            outcome = "metadata alone is written"
            why.append("no column of the template changed: no text is embedded")
        else:
            added, moved, dropped = map(len, (write.added, write.moved, write.dropped))
            outcome = f"{len(write.chunks)} chunks: {added} added, {moved} moved, {dropped} dropped"
            why += self._vectors(write, is_reached=is_reached)
        texts = spec.texts <= write.state.columns.keys() or write.state.complete
        text = render(spec.document.template, write.state.values()) if write.live and texts else None
        return {
            "outcome": outcome, "why": why, "key": write.key, "revision": write.base_revision, "metadata": dict(write.metadata),
            "text": text, "chunks": [chunk.chunk_text for chunk in write.added],
        }  # fmt: skip

    def _vectors(self, write: DocumentWrite, *, is_reached: bool) -> list[str]:
        """Where the vectors of added chunks would come from."""
        hashes = sorted({chunk.content_hash for chunk in write.added})
        if not hashes:
            return ["every chunk keeps its vector"]
        missing = self._sink.missing_vectors(hashes) if is_reached else set(hashes)
        try:
            cached = self._cache.get(missing) if missing else {}
        except PipelineError as error:
            return [f"{len(missing)} vectors are not in the store; the cache cannot be read: {error.message}"]
        model = f"{len(missing) - len(cached)} texts would be sent to the model ({self._embedder.fingerprint})"
        return [
            f"of {len(hashes)} vectors the store has {len(hashes) - len(missing)}, the cache {len(cached)}; {model}"
        ]

    def close(self) -> None:
        """Close the store's connections."""
        self._sink.close()


def _guard(write: DocumentWrite) -> str:
    if write.base_revision:
        return f"the guard accepts it while the row has revision {write.base_revision}; else it is planned again"
    return "the guard accepts it while the store has no such row; else it is planned again"


def _unchanged(stored: dict[str, StoredDocument]) -> tuple[str, ...]:
    documents = stored.values()
    if not documents:
        return ("the store has no such row, and needs none",)
    refused = " It was refused, and nothing newer came." if any(is_refused(d.spec_digest) for d in documents) else ""
    return (f"the store has all of it: the row stands at {max(d.state.newest for d in documents)}.{refused}",)

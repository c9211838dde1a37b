"""From records to vector stores: the whole live path of `index_documents`, without Spark.

A Spark worker, a Lambda and a Flink function call the same object. It decides nothing that the pure functions do not
decide; it reads, asks the model for what nobody holds, and writes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import batched
from typing import TYPE_CHECKING

import numpy as np

from embeddings.protocol import EmbeddingRejected
from schemas.changes import Change, Changes, Ignored, Reject
from schemas.errors import UnavailableError
from transforms.decode import decode
from transforms.documents import Recipe, document_id, plan
from transforms.fold import Rows, RowState, apply, in_order, keys_of, truncated_at

if TYPE_CHECKING:
    from embeddings.protocol import Embedder
    from schemas.documents import DocumentWrite, StoredDocument
    from schemas.records import Record
    from sinks.protocol import Sink
    from transforms.context import DecodeContext

MAX_ROUNDS = 50
"""Rounds of read, plan and write before a refused document is taken for a store that does not answer truly; each round
is lost only to another writer's progress."""


@dataclass
class IndexResult:
    """What became of a batch of records, in counts, and the vectors that were paid for."""

    counts: Counter[str] = field(default_factory=Counter)
    embedded: dict[str, np.ndarray] = field(default_factory=dict)
    rejected: list[tuple[Record, Reject]] = field(default_factory=list)
    """The newest record of each document with a text the model will never take, and the reason."""
    newest_commit_us: dict[str, int] = field(default_factory=dict)
    """By table."""
    commits_us: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """By table: the source's commit time of each change, for its freshness."""


class Indexer:
    """Applies records to vector stores.

    Safe to call with any records, again and in any order, by any number of processes at once: the same set of records
    leaves the same documents. A store that does not answer raises UnavailableError, and the same call later succeeds.
    """

    def __init__(
        self,
        context: DecodeContext,
        recipes: Mapping[str, Recipe],
        sinks: Sequence[Sink],
        embedder: Embedder,
        *,
        texts_at_once: int,
        on_step: Callable[[str], None] | None = None,
    ) -> None:
        """Take the parts; `texts_at_once` texts at most are unsaved between the model and the stores.

        `on_step` is told the name of each step as it begins; tests stop the process there.
        """
        self._context = context
        self._recipes = recipes
        self._sinks = sinks
        self._embedder = embedder
        self._texts_at_once = texts_at_once
        self._on_step = on_step or (lambda _: None)
        self._told_by: dict[tuple[str, str], tuple[str, Record]] = {}

    def index(self, records: Iterable[Record]) -> IndexResult:
        """Apply records to every store, each document as a whole."""
        result = IndexResult()
        rows: dict[str, list[Change]] = defaultdict(list)
        truncations: dict[str, str] = {}
        self._told_by = {}
        for record in records:
            self._sort_out(record, result, rows, truncations)
        self._on_step("read")
        for sink in self._sinks:
            for table, sequence in truncations.items():
                sink.truncate(table, sequence)
            self._apply(sink, rows, result)
        return result

    def _sort_out(
        self, record: Record, result: IndexResult, rows: dict[str, list[Change]], truncations: dict[str, str]
    ) -> None:
        result.counts["records"] += 1
        decoded = decode(record, self._context)
        if isinstance(decoded, Reject):
            result.counts["rejects"] += 1
        elif isinstance(decoded, Ignored):
            result.counts["ignored"] += 1
        elif isinstance(decoded, Changes):
            for change in decoded.changes:
                table, commit_us = change.table, change.commit_time_us
                if commit_us is not None:
                    result.newest_commit_us[table] = max(result.newest_commit_us.get(table, 0), commit_us)
                    result.commits_us[table].append(commit_us)
                if table not in self._recipes:
                    result.counts["without document"] += 1
                elif change.op == "t":
                    truncations[table] = max(truncations.get(table, ""), change.sequence)
                else:
                    rows[table].append(change)
                    told = self._told_by.get((table, change.key))
                    if told is None or told[0] < change.sequence:
                        self._told_by[table, change.key] = (change.sequence, record)

    def _apply(self, sink: Sink, rows: Mapping[str, Sequence[Change]], result: IndexResult) -> None:
        left = {table: in_order(changes) for table, changes in rows.items()}
        for _ in range(MAX_ROUNDS):
            if not left:
                return
            writes = self._writable(self._plan(sink, left), sink, result)
            self._on_step("write")
            refused = _write(sink, writes)
            result.counts["writes"] += len(writes) - len(refused)
            result.counts["refused"] += len(refused)
            keys = {(w.table, w.key) for w in writes if w.document_id in refused}
            again = {
                t: [c for c in changes if any((t, k) in keys for k in keys_of([c]))] for t, changes in left.items()
            }
            left = {table: changes for table, changes in again.items() if changes}
        raise UnavailableError(f"sink {sink.name} refused the same documents {MAX_ROUNDS} times")

    def _plan(self, sink: Sink, rows: Mapping[str, Sequence[Change]]) -> list[DocumentWrite]:
        """Fold changes into what the store holds, and decide each document's write."""
        names = [document_id(table, key) for table, changes in rows.items() for key in keys_of(changes)]
        stored = sink.read(names)
        asked = set(names)
        truncated = sink.truncations()
        writes = []
        for table, changes in rows.items():
            states = Rows(lambda key, table=table: _held(sink, stored, asked, document_id(table, key)))  # type: ignore[misc]
            for change in changes:
                apply(states, change)
            for key, state in list(states.items()):
                kept = truncated_at(state, truncated.get(table, ""))
                write = plan(stored.get(document_id(table, key)), kept, key, self._recipes[table])
                if write:
                    writes.append(write)
        return writes

    def _writable(self, writes: Sequence[DocumentWrite], sink: Sink, result: IndexResult) -> list[DocumentWrite]:
        """Get the vectors that are missing; a document with a text the model refuses keeps what it has."""
        texts = {chunk.content_hash: chunk.chunk_text for write in writes for chunk in write.added}
        refused = self._embed(texts, sink, result) if texts else {}
        kept = []
        for write in writes:
            reasons = [refused[c.content_hash] for c in write.added if c.content_hash in refused]
            if reasons:
                result.counts["texts refused"] += 1
                reason = Reject(reasons[0].condition, reasons[0].message, write.table, "embed")
                record = self._told_by.get((write.table, write.key))
                result.rejected += [(record[1], reason)] if record else []
            else:
                kept.append(write)
        return kept

    def _embed(self, texts: Mapping[str, str], sink: Sink, result: IndexResult) -> dict[str, EmbeddingRejected]:
        """Ask the model for what neither the store nor this batch holds, and keep each answer before asking on (I9)."""
        missing = sink.missing_vectors(sorted(texts))
        known = {h: result.embedded[h] for h in missing if h in result.embedded}
        if known:
            sink.keep_vectors(known)
        refused: dict[str, EmbeddingRejected] = {}
        for group in batched((h for h in texts if h in missing and h not in known), self._texts_at_once, strict=False):
            self._on_step("embed")
            answers = dict(zip(group, self._embedder.embed_documents([texts[h] for h in group]), strict=True))
            vectors = {h: a for h, a in answers.items() if isinstance(a, np.ndarray)}
            sink.keep_vectors(vectors)
            result.embedded |= vectors
            refused |= {h: a for h, a in answers.items() if isinstance(a, EmbeddingRejected)}
        result.counts["texts"] += len(texts)
        result.counts["texts embedded"] += len(missing) - len(known)
        return refused


def _held(sink: Sink, stored: dict[str, StoredDocument], asked: set[str], name: str) -> RowState | None:
    """The state of a document, reading one that only a key change led to."""
    if name not in asked:
        asked.add(name)
        stored |= sink.read([name])
    return stored[name].state if name in stored else None


def _write(sink: Sink, writes: Sequence[DocumentWrite]) -> set[str]:
    """Write documents; the rows that key changes emptied go last, and wait while one of their table was refused.

    What a key change carries must stand with the new key before the old one lets go of it: else a refused write, or a
    kill, between the two would lose it.
    """
    emptied = [write for write in writes if write.state.moves and not write.state.exists]
    if not emptied:
        return sink.write(writes)
    names = {write.document_id for write in emptied}
    refused = sink.write([write for write in writes if write.document_id not in names])
    tables = {write.table for write in writes if write.document_id in refused}
    waiting = {write.document_id for write in emptied if write.table in tables}
    return refused | waiting | sink.write([write for write in emptied if write.document_id not in waiting])

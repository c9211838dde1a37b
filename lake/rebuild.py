"""A vector store written from the lake alone, while live jobs write it too: the guard decides.

Folds each table's history from `changes`, and takes vectors from `embedding_cache`; the model is asked only for a text
that no cache and no store holds. One process, in memory: rows and their texts of one table at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import TYPE_CHECKING

import numpy as np

from lake import embedding_cache
from lake.current import TableFold, fold_table
from schemas.errors import UnavailableError
from transforms.documents import Recipe, document_id, narrowed, plan
from transforms.fold import EMPTY, join, truncated_at

if TYPE_CHECKING:
    from embeddings.protocol import Embedder
    from lake.layout import LakeLayout
    from schemas.documents import DocumentWrite
    from schemas.tables import TableConfig
    from sinks.protocol import Sink
    from transforms.context import DecodeContext

DOCUMENTS_AT_ONCE = 200
_ROUNDS = 20


@dataclass
class RebuildCounts:
    """What a rebuild did."""

    rows: int = 0
    written: int = 0
    from_cache: int = 0
    texts_sent: int = 0
    """Texts no cache held, sent to the model."""


@dataclass(frozen=True)
class Rebuild:
    """Writes one store from the lake. Safe to stop and to run again: what the store holds already is left alone."""

    layout: LakeLayout
    contexts: Mapping[str, DecodeContext]
    sink: Sink
    embedder: Embedder

    def run(self, tables: Sequence[TableConfig], progress: Callable[[str, int, int], None]) -> RebuildCounts:
        """Write every table that makes documents; `progress` is told table, rows done and rows in all."""
        counts = RebuildCounts()
        self.sink.prepare()
        for table in tables:
            recipe = Recipe.of(table)
            if recipe is None:
                continue
            fold = fold_table(self.layout, table.table, self.contexts)
            if fold.truncated:
                self.sink.truncate(table.table, fold.truncated)
            keys = sorted(fold.rows)
            for done, part in enumerate(batched(keys, DOCUMENTS_AT_ONCE, strict=False)):
                self._write(recipe, fold, part, counts)
                progress(table.table, min(len(keys), (done + 1) * DOCUMENTS_AT_ONCE), len(keys))
            counts.rows += len(keys)
        return counts

    def _write(self, recipe: Recipe, fold: TableFold, keys: Sequence[str], counts: RebuildCounts) -> None:
        left = list(keys)
        for _ in range(_ROUNDS):
            writes = self._plan(recipe, fold, left)
            self._keep_vectors(writes, counts)
            refused = self.sink.write(writes)
            counts.written += len(writes) - len(refused)
            left = [write.key for write in writes if write.document_id in refused]
            if not left:
                return
        raise UnavailableError(f"sink {self.sink.name} refused the same documents {_ROUNDS} times")

    def _plan(self, recipe: Recipe, fold: TableFold, keys: Sequence[str]) -> list[DocumentWrite]:
        names = {key: document_id(recipe.table, key) for key in keys}
        stored = self.sink.read(list(names.values()))
        writes = []
        for key, name in names.items():
            held = stored.get(name)
            state = join(held.state if held else EMPTY, narrowed(fold.rows[key], recipe))
            write = plan(held, truncated_at(state, fold.truncated), key, recipe)
            writes += [write] if write else []
        return writes

    def _keep_vectors(self, writes: Sequence[DocumentWrite], counts: RebuildCounts) -> None:
        texts = {chunk.content_hash: chunk.chunk_text for write in writes for chunk in write.added}
        missing = sorted(self.sink.missing_vectors(sorted(texts))) if texts else []
        if not missing:
            return
        vectors = embedding_cache.vectors(self.layout.root, self.embedder.fingerprint, missing)
        counts.from_cache += len(vectors)
        unknown = [content for content in missing if content not in vectors]
        if unknown:
            answers = self.embedder.embed_documents([texts[content] for content in unknown])
            new = {h: a for h, a in zip(unknown, answers, strict=True) if isinstance(a, np.ndarray)}
            counts.texts_sent += len(unknown)
            embedding_cache.append(
                self.layout.root, self.embedder.fingerprint, {h: v.astype("<f4").tobytes() for h, v in new.items()}
            )
            vectors = {**vectors, **new}
        self.sink.keep_vectors(vectors)

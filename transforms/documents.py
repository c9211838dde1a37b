"""From a row's state to its document: identity, text, chunks, and the difference from what a store holds."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import Formatter
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.documents import Chunk, DocumentWrite, StoredChunk, StoredDocument
from transforms import exact_json
from transforms.chunking import split
from transforms.fold import EMPTY, RowState

if TYPE_CHECKING:
    from schemas.changes import Change
    from schemas.tables import DocumentConfig, TableConfig


@dataclass(frozen=True)
class Recipe:
    """How rows of one table become documents."""

    table: str
    document: DocumentConfig

    @classmethod
    def of(cls, table: TableConfig) -> Recipe | None:
        """The recipe of a table, None for one that goes to the lake only."""
        return cls(table.table, table.document) if table.document else None

    @cached_property
    def fingerprint(self) -> str:
        """Changes when the text, the cut or the metadata of a document would."""
        return digest(exact_json.dumps(self.document.model_dump(mode="json"), sort_keys=True))[:16]

    @cached_property
    def texts(self) -> frozenset[str]:
        """The columns the template names."""
        return frozenset(self.document.template_columns)

    @cached_property
    def columns(self) -> frozenset[str]:
        """The columns a store must remember."""
        return self.texts | frozenset(self.document.metadata)

    def whole_row(self, change: Change) -> WholeRow | None:
        """What a change of the whole row shows of the table's columns; None where it is no such change."""
        if not change.complete:
            return None
        absent = self.columns.difference(change.columns, change.unavailable)
        return WholeRow(change.sequence, tuple(sorted(absent)), tuple(sorted(change.columns)) if absent else ())


class WholeRow(NamedTuple):
    """A whole row as a record told it; of several the greatest counts, which is the newest."""

    sequence: str
    absent: tuple[str, ...]
    """Columns that the document names and the row does not have."""
    columns: tuple[str, ...]
    """The names of the columns it has, where some are absent."""


def digest(text: str) -> str:
    """SHA-256 of a text as hexadecimal; lone surrogates count as they are."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def document_id(table: str, key: str) -> str:
    """A document's name: 128 bits of the table and its key, safe in every store."""
    return digest(f"{table}\0{key}")[:32]


def narrowed(state: RowState, recipe: Recipe) -> RowState:
    """The part of a state that the document needs."""
    if state.columns.keys() <= recipe.columns:
        return state
    columns = {n: c for n, c in state.columns.items() if n in recipe.columns}
    return RowState(state.upserted, state.deleted, state.complete, columns, state.moves, state.commit_time_us)


def value_text(value: Any) -> str:
    """A column's value as a reader would write it; NULL is empty."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return exact_json.dumps(value, ascii_only=False) if isinstance(value, (bool, list, dict)) else str(value)


def render(template: str, values: Mapping[str, Any]) -> str:
    """The document's text. What no UTF-8 store takes becomes U+FFFD."""
    parts = []
    for literal, name, _, _ in Formatter().parse(template):
        parts.append(literal)
        if name:
            parts.append(value_text(values.get(name)))
    return exact_json.printable("".join(parts)).strip()


def chunks_of(doc_id: str, text: str, document: DocumentConfig) -> tuple[Chunk, ...]:
    """Cut a text and name its chunks; equal texts in one document are told apart by their occurrence."""
    seen: Counter[str] = Counter()
    chunks = []
    for index, piece in enumerate(split(text, document.chunk)):
        content = digest(piece)
        occurrence, seen[content] = seen[content], seen[content] + 1
        chunks.append(Chunk(digest(f"{doc_id}\0{content}\0{occurrence}")[:32], index, content, piece))
    return tuple(chunks)


@dataclass(frozen=True, slots=True)
class ChunkDiff:
    """Chunks to add, to move to another place, and to drop; the rest stays untouched (I12)."""

    added: tuple[Chunk, ...]
    moved: tuple[Chunk, ...]
    dropped: tuple[str, ...]


def diff(held: Sequence[StoredChunk], wanted: Sequence[Chunk]) -> ChunkDiff:
    """Compare the chunks a store holds with those a document should have."""
    places = {c.chunk_id: c.chunk_index for c in held}
    names = {c.chunk_id for c in wanted}
    return ChunkDiff(
        tuple(c for c in wanted if c.chunk_id not in places),
        tuple(c for c in wanted if places.get(c.chunk_id, c.chunk_index) != c.chunk_index),
        tuple(c.chunk_id for c in held if c.chunk_id not in names),
    )


def plan(stored: StoredDocument | None, state: RowState, key: str, recipe: Recipe) -> DocumentWrite | None:
    """Decide the write that brings a stored document to a state; None when the store holds it already.

    Pure, and the same for every store. While a column the template needs is pending, the document keeps the chunks it
    has: an older text is better than half of one.
    """
    held = stored or StoredDocument(document_id(recipe.table, key), 0, EMPTY, recipe.fingerprint)
    state = narrowed(state, recipe)
    if held.state == state and held.recipe == recipe.fingerprint:
        return None
    base = (held.document_id, recipe.table, key, held.revision, state, recipe.fingerprint)
    if not state.exists:
        return DocumentWrite(*base, live=False, dropped=tuple(c.chunk_id for c in held.chunks))
    values = state.values()
    metadata = {n: values.get(n) for n in recipe.document.metadata}
    pending = state.pending(recipe.columns)
    if not recipe.texts.isdisjoint(pending):
        return DocumentWrite(*base, live=True, metadata=metadata, pending=pending)
    changed = (
        held.recipe != recipe.fingerprint
        or not held.state.exists
        or not held.chunks
        or _texts(held.state, recipe) != _texts(state, recipe)
    )
    if not changed:
        return DocumentWrite(*base, live=True, metadata=metadata, pending=pending, texts_changed=False)
    chunks = chunks_of(held.document_id, render(recipe.document.template, values), recipe.document)
    found = diff(held.chunks, chunks)
    return DocumentWrite(
        *base,
        live=True,
        metadata=metadata,
        chunks=chunks,
        added=found.added,
        moved=found.moved,
        dropped=found.dropped,
        pending=pending,
    )


def _texts(state: RowState, recipe: Recipe) -> dict[str, Any]:
    return {n: state.columns[n].value for n in recipe.texts if n in state.columns}

"""From a row's state to its document: identity, text, chunks, and the difference from what a store holds."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from string import Formatter
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.documents import Chunk, DocumentWrite, Refusal, StoredChunk, StoredDocument
from transforms.documents.chunking import split
from transforms.fold import EMPTY, HOLE, Cell, RowState, hole_rank
from transforms.values import exact_json

if TYPE_CHECKING:
    from schemas.changes import Change
    from schemas.tables import DocumentConfig, TableConfig


@dataclass(frozen=True)
class DocumentSpec:
    """How rows of one table become documents."""

    table: str
    document: DocumentConfig

    @classmethod
    def of(cls, table: TableConfig) -> DocumentSpec | None:
        """The spec of a table, None for one that goes to the lake only."""
        return cls(table.table, table.document) if table.document else None

    def within(self, max_tokens: int) -> DocumentSpec:
        """The spec for a model that takes so many tokens of a text: this one, unless its chunks are longer."""
        return self if self.document.chunk.max_tokens <= max_tokens else _cut(self, max_tokens)

    @cached_property
    def digest(self) -> str:
        """Changes when the text, the cut or the metadata of a document would."""
        told = self.document.model_dump(mode="json", exclude={"max_bytes"})  # it changes no document that is made
        return digest(exact_json.dumps(told, sort_keys=True))[:16]

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


@lru_cache
def _cut(spec: DocumentSpec, max_tokens: int) -> DocumentSpec:
    chunk = spec.document.chunk
    cut = chunk.model_copy(update={"max_tokens": max_tokens, "overlap": min(chunk.overlap, max_tokens // 2)})
    return DocumentSpec(spec.table, spec.document.model_copy(update={"chunk": cut}))


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


def narrowed(state: RowState, spec: DocumentSpec) -> RowState:
    """The part of a state that the document needs."""
    if state.columns.keys() <= spec.columns:
        return state
    columns = {n: c for n, c in state.columns.items() if n in spec.columns}
    return RowState(state.upserted, state.deleted, state.complete, columns, state.key_moves, state.commit_time_us)


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


def plan(stored: StoredDocument | None, state: RowState, key: str, spec: DocumentSpec) -> DocumentWrite | None:
    """Decide the write that brings a stored document to a state; None when the store holds it already.

    Pure, and the same for every store. While a column the template needs is pending, the document keeps the chunks it
    has: an older text is better than half of one.
    """
    held = stored or StoredDocument(document_id(spec.table, key), 0, EMPTY, spec.digest)
    state = narrowed(state, spec)
    if held.state == state and held.spec_digest == spec.digest:
        return None
    waits = not spec.texts.isdisjoint(unresolved := state.pending(spec.columns))
    if waits and held.state == state and made_by(held.spec_digest) == spec.digest:
        return None  # a store refused it, and nothing was told since
    chunks_held = tuple(c.chunk_id for c in held.chunks)
    base = DocumentWrite(
        held.document_id, spec.table, key, held.revision, state, spec.digest, live=state.exists, stored_chunk_ids=chunks_held,
    )  # fmt: skip
    if not state.exists:
        return replace(base, dropped=chunks_held)
    values = state.values()
    base = replace(base, metadata={n: values.get(n) for n in spec.document.metadata}, unresolved=unresolved)
    if waits:
        return base
    if is_refused(held.spec_digest) and held.state in (state, without_values(state)):
        base = replace(base, refused_as=held.spec_digest)
    changed = (
        held.spec_digest != spec.digest
        or not held.state.exists
        or not held.chunks
        or _texts(held.state, spec) != _texts(state, spec)
    )
    if not changed:
        return replace(base, texts_changed=False)
    text = render(spec.document.template, values)
    if (size := len(text.encode())) > spec.document.max_bytes:
        told = f"the document's text has {size} bytes, document.max_bytes is {spec.document.max_bytes}"
        return refused(base, Refusal("embed", "DOCUMENT_TOO_LONG", told))
    chunks = chunks_of(held.document_id, text, spec.document)
    found = diff(held.chunks, chunks)
    return replace(base, chunks=chunks, added=found.added, moved=found.moved, dropped=found.dropped)


def refused(write: DocumentWrite, why: Refusal) -> DocumentWrite:
    """The write after which nothing of a document is found, neither of this state nor of an older one, and which says so.

    The head bears the refusal behind its spec, so any later plan makes the document anew. Where a store refused it the
    values are left out as well, since one of them is what it cannot take: the lake has them.
    """
    whole = why.stage == "embed"
    return replace(
        write,
        spec_digest=f"{made_by(write.spec_digest)}{_REFUSED}{why.condition}",
        state=write.state if whole else without_values(write.state),
        metadata=write.metadata if whole else {},
        chunks=(), added=(), moved=(), dropped=write.stored_chunk_ids, unresolved=(), texts_changed=True, refused=why,
    )  # fmt: skip


def without_values(state: RowState) -> RowState:
    """A state that waits for every value it had: the same value, told again, fills it, and so does a newer one."""
    cells = {name: Cell(HOLE, hole_rank(cell.rank)) for name, cell in state.columns.items()}
    return replace(state, columns=cells)


def is_refused(spec: str) -> bool:
    """Whether a head's spec says that the document was refused."""
    return _REFUSED in spec


def made_by(spec: str) -> str:
    """The digest of the spec, whether the document was refused or not."""
    return spec.partition(_REFUSED)[0]


_REFUSED = "!"


def _texts(state: RowState, spec: DocumentSpec) -> dict[str, Any]:
    return {n: state.columns[n].value for n in spec.texts if n in state.columns}

"""From a row's state to its document: identity, text, chunks, and the difference from what a store holds."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.documents import Chunk, DocumentWrite, Refusal, StoredChunk, StoredDocument
from transforms.documents.chunking import split
from transforms.documents.template import render
from transforms.filters.terms import FORM
from transforms.fold import EMPTY, UNRESOLVED, Cell, RowState
from transforms.ranks import unresolved_rank
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
        """Changes when the text, the chunking, the language, the metadata or its terms would; stores keep it."""
        settings = self.document.model_dump(mode="json", exclude={"max_bytes"})  # it changes no document that is made
        if self.document.language is None:
            del settings["language"]  # as in the digests of documents from before there was one
        if self.document.metadata:
            settings["terms"] = FORM
        return digest(exact_json.dumps(settings, sort_keys=True))[:16]

    @cached_property
    def texts(self) -> frozenset[str]:
        """The columns the template names."""
        return frozenset(self.document.template_columns)

    @cached_property
    def columns(self) -> frozenset[str]:
        """The columns whose values a store keeps."""
        return self.texts | frozenset(self.document.metadata)

    def whole_row(self, change: Change) -> WholeRow | None:
        """Which of the spec's columns a change of the whole row has; None for any other change."""
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
    """The columns that the record of a whole row has; the greatest of several is the newest."""

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


def chunks_of(doc_id: str, text: str, document: DocumentConfig) -> tuple[Chunk, ...]:
    """Cut a text and name its chunks; the occurrence distinguishes equal texts in one document.

    In another language the same text is another chunk, so that a store writes its words anew.
    """
    seen: Counter[str] = Counter()
    language = f"\0{document.language}" if document.language else ""
    chunks = []
    for index, chunk_text in enumerate(split(text, document.chunk)):
        content = digest(chunk_text)
        occurrence, seen[content] = seen[content], seen[content] + 1
        chunks.append(Chunk(digest(f"{doc_id}\0{content}\0{occurrence}{language}")[:32], index, content, chunk_text))
    return tuple(chunks)


@dataclass(frozen=True, slots=True)
class ChunkDiff:
    """Chunks to add, to move to another place, and to drop; the rest stays untouched (I12)."""

    added: tuple[Chunk, ...]
    moved: tuple[Chunk, ...]
    dropped: tuple[str, ...]


def diff(stored: Sequence[StoredChunk], wanted: Sequence[Chunk]) -> ChunkDiff:
    """Compare the chunks that a store has with those a document should have."""
    places = {c.chunk_id: c.chunk_index for c in stored}
    names = {c.chunk_id for c in wanted}
    return ChunkDiff(
        tuple(c for c in wanted if c.chunk_id not in places),
        tuple(c for c in wanted if places.get(c.chunk_id, c.chunk_index) != c.chunk_index),
        tuple(c.chunk_id for c in stored if c.chunk_id not in names),
    )


def plan(stored: StoredDocument | None, state: RowState, key: str, spec: DocumentSpec) -> DocumentWrite | None:
    """Decide the write that brings a stored document to a state; None when the store has it already.

    Pure, and the same for every store. While a column of the template is unresolved, the document keeps the chunks it
    has: an older text is better than half of one.
    """
    before = stored or StoredDocument(document_id(spec.table, key), 0, EMPTY, spec.digest)
    state = narrowed(state, spec)
    if before.state == state and before.spec_digest == spec.digest:
        return None
    waits = not spec.texts.isdisjoint(unresolved := state.unresolved(spec.columns))
    if waits and before.state == state and made_by(before.spec_digest) == spec.digest:
        return None  # a store refused it, and no newer change has come
    stored_ids = tuple(c.chunk_id for c in before.chunks)
    base = DocumentWrite(
        before.document_id, spec.table, key, before.revision, state, spec.digest, live=state.exists, stored_chunk_ids=stored_ids,
        language=spec.document.language or "",
    )  # fmt: skip
    if not state.exists:
        return replace(base, dropped=stored_ids)
    values = state.values()
    base = replace(base, metadata={n: values.get(n) for n in spec.document.metadata}, unresolved=unresolved)
    if waits:
        return base
    if is_refused(before.spec_digest) and before.state in (state, without_values(state)):
        base = replace(base, refused_as=before.spec_digest)
    changed = (
        before.spec_digest != spec.digest
        or not before.state.exists
        or not before.chunks
        or _texts(before.state, spec) != _texts(state, spec)
    )
    if not changed:
        return replace(base, texts_changed=False)
    text = render(spec.document.template, values)
    if (size := len(text.encode())) > spec.document.max_bytes:
        message = f"the document's text has {size} bytes, document.max_bytes is {spec.document.max_bytes}"
        return refused(base, Refusal("embed", "DOCUMENT_TOO_LONG", message))
    chunks = chunks_of(before.document_id, text, spec.document)
    change = diff(before.chunks, chunks)
    return replace(base, chunks=chunks, added=change.added, moved=change.moved, dropped=change.dropped)


def refused(write: DocumentWrite, why: Refusal) -> DocumentWrite:
    """The write that leaves a refused document without chunks, of this state and of any older one, and marks it refused.

    The document row has the refusal behind the spec's digest, so any later plan makes the document anew. Where
    a store refused it the values are left out as well, since one of them is what it cannot take: the lake has them.
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
    """The state with every column unresolved: a value that comes again resolves its column, and so does a newer one."""
    cells = {name: Cell(UNRESOLVED, unresolved_rank(cell.rank)) for name, cell in state.columns.items()}
    return replace(state, columns=cells)


def is_refused(spec_digest: str) -> bool:
    """Whether the digest that is stored with a document says that it was refused."""
    return _REFUSED in spec_digest


def made_by(spec_digest: str) -> str:
    """The digest of the document spec, whether the document was refused or not."""
    return spec_digest.partition(_REFUSED)[0]


_REFUSED = "!"


def _texts(state: RowState, spec: DocumentSpec) -> dict[str, Any]:
    return {n: state.columns[n].value for n in spec.texts if n in state.columns}

"""Documents and chunks, as every vector store keeps them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from transforms.fold import RowState

_REVISION_BITS = 52
"""Of the first revision of a row: two rows under one id hardly ever begin alike, and JSON's numbers hold it."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document's text. `chunk_id` names (document, content, occurrence): a moved chunk is the same chunk."""

    chunk_id: str
    chunk_index: int
    content_hash: str
    chunk_text: str


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk's place as the write path reads it from a store: enough to compare, no text and no vector."""

    chunk_id: str
    chunk_index: int
    content_hash: str


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as the write path reads it from a store: its row and the places of its chunks.

    `revision` grows with each write of the row; a write is refused unless it was planned on the stored revision.
    `spec_digest` is the digest of the `DocumentSpec` that made the document, followed by `!` and a condition if it was refused.
    """

    document_id: str
    revision: int
    state: RowState
    spec_digest: str
    chunks: tuple[StoredChunk, ...] = ()


@dataclass(frozen=True, slots=True)
class ActualChunk:
    """A chunk as an audit reads it from a store.

    `text_hash` is the SHA-256 of its text. `vector` is the SHA-256 of its vector as big-endian float32, `HAS_VECTOR` where
    values are not compared, empty without a vector.
    """

    chunk_id: str
    chunk_index: int
    content_hash: str
    text_hash: str
    vector: str


@dataclass(frozen=True, slots=True)
class ActualDocument:
    """A document as an audit reads it from a store, valid or not; it is compared with an `ExpectedDocument`.

    `name` is the store's own name of the row, equal to `document_id` if a pipeline wrote it. `key` and `metadata` are the
    stored JSON texts.
    """

    name: str
    document_id: str
    table: str
    key: str
    sequence: str
    revision: int
    live: bool
    spec_digest: str
    metadata: str
    chunks: tuple[ActualChunk, ...] = ()


HAS_VECTOR = "v"


@dataclass(frozen=True, slots=True)
class BucketChecksum:
    """The number of rows (documents and chunks) in a bucket, and the sum of their weights."""

    rows: int = 0
    checksum: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a document cannot be searched; it holds nothing of the text."""

    stage: Literal["embed", "store"]
    """`embed`: the model, or a limit of ours, refuses a text of it. `store`: a store refuses the whole document."""
    condition: str
    message: str


@dataclass(frozen=True, slots=True)
class DocumentWrite:
    """The guarded replacement of a document: its row, and its chunks as a set.

    `chunks` is the new set, in order. `added` and `moved` are those that the store lacks or has at another index, `dropped`
    the stored ones to delete, `stored_chunk_ids` all stored ones. A document that is not live has no chunks, metadata or text.
    `texts_changed` is false if no template column's value changed. `unresolved` names columns without a known value (I3).
    A refused document is live and has no chunks (`planning.refused`). `refused_as` is the `spec_digest` of a document that the
    store has refused in this very state.
    """

    document_id: str
    table: str
    key: str
    base_revision: int
    state: RowState
    spec_digest: str
    live: bool
    metadata: Mapping[str, Any] = field(default_factory=dict)
    chunks: tuple[Chunk, ...] = ()
    added: tuple[Chunk, ...] = ()
    moved: tuple[Chunk, ...] = ()
    dropped: tuple[str, ...] = ()
    unresolved: tuple[str, ...] = ()
    texts_changed: bool = True
    stored_chunk_ids: tuple[str, ...] = ()
    refused: Refusal | None = None
    refused_as: str = ""
    language: str = ""
    """Of the chunks' words, which a chunk's name depends on; empty for the store's own."""
    earlier_keys: tuple[str, ...] = ()
    """Keys that the row had, as far as the changes concern them: this write has taken values of theirs."""

    @property
    def rows(self) -> set[tuple[str, str]]:
        """Table and key of each row whose changes the write is made of."""
        return {(self.table, key) for key in (self.key, *self.earlier_keys)}

    def next_revision(self) -> int:
        """Return the revision that this write leaves; that of a new row is random, and another one with each call.

        A row that a TRUNCATE or an audit removed may be written anew: a write planned on the removed one must not fit it.
        """
        return self.base_revision + 1 if self.base_revision else 1 + secrets.randbits(_REVISION_BITS)

"""Documents and chunks, as every vector store keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from transforms.fold import RowState


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document's text. `chunk_id` names (document, content, occurrence): a moved chunk is the same chunk."""

    chunk_id: str
    chunk_index: int
    content_hash: str
    chunk_text: str


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """What a store tells of a chunk it holds: enough to compare, no text and no vector."""

    chunk_id: str
    chunk_index: int
    content_hash: str


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """What a store tells of a document: its head and the places of its chunks.

    `revision` counts the store's writes of the head; a write is refused unless it was planned on the revision held.
    `recipe` is the fingerprint of template, chunking and metadata the document was made with, and its refusal behind it.
    """

    document_id: str
    revision: int
    state: RowState
    recipe: str
    chunks: tuple[StoredChunk, ...] = ()


@dataclass(frozen=True, slots=True)
class HeldChunk:
    """A chunk as a store really has it.

    `text_hash` is the SHA-256 of its text; `vector` that of its vector as big-endian float32, or `HAS_VECTOR` where values
    were not asked for; empty when it has none.
    """

    chunk_id: str
    chunk_index: int
    content_hash: str
    text_hash: str
    vector: str


@dataclass(frozen=True, slots=True)
class HeldDocument:
    """A document as a store really has it, whatever was meant to be there: what a reconciliation compares.

    `name` is the store's own name of the row, which is `document_id` for one that a pipeline wrote; `key` and `metadata`
    are JSON as it stands.
    """

    name: str
    document_id: str
    table: str
    key: str
    sequence: str
    revision: int
    live: bool
    recipe: str
    metadata: str
    chunks: tuple[HeldChunk, ...] = ()


HAS_VECTOR = "v"


@dataclass(frozen=True, slots=True)
class BucketChecksum:
    """How many rows (heads and chunks) a bucket of documents has, and the sum of their weights."""

    rows: int = 0
    checksum: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a document cannot be searched; it holds nothing of the text."""

    stage: Literal["embed", "store"]
    """Who refuses it: the model (or we, on its behalf) a text of it, or a store the whole."""
    condition: str
    message: str


@dataclass(frozen=True, slots=True)
class DocumentWrite:
    """The guarded replacement of a document: head and chunks as a set.

    `chunks` is the whole new set, in order; `added` and `moved` say which of them the store lacks or holds at another
    place, `dropped` which held ones go. A document that is not live has no chunks, no metadata and no text.
    `texts_changed` is false when no template column's value changed. `held` names all chunks that the store holds.
    A refused document is live and has no chunks (`planning.refused`); `refused_as` is the spec of one that the
    store holds refused in this very state.
    """

    document_id: str
    table: str
    key: str
    base_revision: int
    state: RowState
    recipe: str
    live: bool
    metadata: Mapping[str, Any] = field(default_factory=dict)
    chunks: tuple[Chunk, ...] = ()
    added: tuple[Chunk, ...] = ()
    moved: tuple[Chunk, ...] = ()
    dropped: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    texts_changed: bool = True
    held: tuple[str, ...] = ()
    refused: Refusal | None = None
    refused_as: str = ""

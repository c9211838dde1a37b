"""What a vector store must be able to do; one contract suite holds every store to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

    from schemas.documents import DocumentWrite, StoredDocument


@dataclass(frozen=True, slots=True)
class StoreSummary:
    """What a store holds, for `ragstream status`."""

    documents: int
    chunks: int
    pending: Mapping[str, int]
    newest_commit_us: int | None


class Sink(Protocol):
    """A vector store fed by guarded, per-document writes.

    Writing the same documents twice, in any order and by any number of writers at once, leaves what one writer would:
    a write is refused unless it was planned on the revision the store holds, and a refused one is planned again.
    A reader never sees a document's chunks of two versions, nor a row that a truncation has removed.
    """

    @property
    def name(self) -> str:
        """The store's name in the configuration and in `status`."""

    def check(self) -> None:
        """Connect; raise ConfigurationError for a wrong dimension, another model, or missing rights. Writes nothing."""

    def prepare(self) -> None:
        """Create what is missing; safe to call by several drivers at once."""

    def truncations(self) -> dict[str, str]:
        """The newest TRUNCATE of each table, by sequence."""

    def read(self, document_ids: Sequence[str]) -> dict[str, StoredDocument]:
        """Heads and chunk places of those documents that the store knows, tombstones included."""

    def missing_vectors(self, content_hashes: Sequence[str]) -> set[str]:
        """Those hashes for which the store holds no vector."""

    def write(self, writes: Sequence[DocumentWrite], vectors: Mapping[str, np.ndarray]) -> set[str]:
        """Write documents, each as a whole; the document ids that were refused come back, to be read and planned again.

        `vectors` holds, by content hash, a float32 vector for each added chunk the store had none for.
        """

    def truncate(self, table: str, sequence: str) -> None:
        """Make every row of a table that is not newer vanish, at once for readers (I5)."""

    def summary(self) -> StoreSummary:
        """Count what a reader sees."""

    def close(self) -> None:
        """Let go of connections."""

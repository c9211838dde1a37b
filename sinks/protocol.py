"""What a vector store must be able to do, by role; one contract suite holds every store to all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

    from schemas.documents import BucketChecksum, DocumentWrite, HeldDocument, StoredDocument
    from schemas.ownership import Owner
    from sinks.versions import IndexVersion, IndexVersions


@dataclass(frozen=True, slots=True)
class StoreSummary:
    """What a store holds, for `ragstream status`."""

    documents: int
    chunks: int
    pending: Mapping[str, int]
    indexed_as_of_us: int | None
    index_versions: IndexVersions | None = None
    """Told by `status` itself."""


class Store(Protocol):
    """One index version of a store, the one that its model fills."""

    @property
    def name(self) -> str:
        """The store's name in the configuration and in `status`."""

    @property
    def fingerprint(self) -> str:
        """The model whose index version this is."""

    def check(self, owner: Owner | None = None) -> None:
        """Connect; raise ConfigurationError for what cannot be written to. Writes nothing.

        That is a wrong dimension, another model, missing rights, or a store that belongs to another pipeline than `owner`.
        """

    def prepare(self, owner: Owner | None = None) -> None:
        """Create what is missing, also of an index version that was announced; safe to call by several drivers at once.

        With an owner the store is that pipeline's from then on, and one that belongs to another is refused before anything
        is written (ConfigurationError). A store that nobody claimed yet becomes the first one's.
        """

    def close(self) -> None:
        """Let go of connections."""


class DocumentStore(Store, Protocol):
    """Documents that are written whole, each guarded by the revision that its write was planned on."""

    def read(self, document_ids: Sequence[str]) -> dict[str, StoredDocument]:
        """Heads and chunk places of those documents that the store knows, tombstones included."""

    def read_with_truncations(self, document_ids: Sequence[str]) -> tuple[dict[str, StoredDocument], dict[str, str]]:
        """Those documents, and `truncations` as they are no earlier; in one request where the store has such a one."""

    def truncations(self) -> dict[str, str]:
        """The newest TRUNCATE of each table, by sequence."""

    def write(self, writes: Sequence[DocumentWrite]) -> set[str]:
        """Write documents, each as a whole; the document ids that were refused come back, to be read and planned again.

        The vectors of added chunks are kept before; a write whose vector has gone is refused. Raises `DocumentRefusedError`
        for a document that the store will never take, having written others or not.
        """

    def bulk_load(self) -> AbstractContextManager[None]:
        """Many writes that nobody waits for one by one: what was accepted is searchable at the end of them at the latest.

        Else a write returns when what was accepted can be searched (on OpenSearch Serverless: 10 s later).
        """

    def truncate(self, table: str, sequence: str) -> None:
        """Make every row of a table that is not newer vanish, at once for readers (I5)."""


class StoredVectors(Store, Protocol):
    """Vectors by content hash, whichever documents have them."""

    def missing_vectors(self, content_hashes: Sequence[str]) -> set[str]:
        """Those hashes for which the store holds no vector."""

    def vectors(self, content_hashes: Sequence[str]) -> dict[str, np.ndarray]:
        """The vectors that the store holds for those hashes."""

    def keep_vectors(self, vectors: Mapping[str, np.ndarray], *, replace: bool = False) -> None:
        """Keep float32 vectors by content hash, at once and for any document: what was paid for survives a kill.

        One that is held stays as it is, unless it is to be replaced.
        """

    def vectors_since(self, moment_us: int) -> Iterator[tuple[str, np.ndarray]]:
        """Vectors kept since a moment (the store's clock), so that a cache can catch up after a crash."""


class WritableStore(DocumentStore, StoredVectors, Protocol):
    """What the optimistic writer needs: documents, and the vectors they name."""


class VersionedStore(Store, Protocol):
    """The index versions of a store, one for each model."""

    def index_versions(self) -> IndexVersions | None:
        """The store's index versions as they are now, for whatever model this was opened; None where there is no store."""

    def change_index_versions(self, told: Callable[[IndexVersions], IndexVersions]) -> IndexVersions:
        """Replace them by what they become, at once, and with them what readers of their own use; no other's change is lost."""

    def sibling(self, index_version: IndexVersion) -> Sink:
        """Another index version of the same store, by connections of its own that are closed with this one's."""

    def drop(self, number: int) -> None:
        """Remove all that an index version holds; one that is gone already is no error."""


class OwnedStore(Store, Protocol):
    """A store that belongs to one pipeline."""

    def owner(self) -> Owner | None:
        """Whose the store is; None where there is no store, or nobody claimed it."""

    def claim(self, owner: Owner, instead_of: Owner | None = None) -> Owner:
        """Make a store that is nobody's, or still another's, that pipeline's; returns whose it is now, whoever came first."""


class StoreAudit(Store, Protocol):
    """What a store really holds, counted and compared; what should not be there is removed."""

    def summary(self) -> StoreSummary:
        """Count what a reader sees."""

    def documents_by_spec(self) -> dict[tuple[str, str], int]:
        """Count live documents by table and by the fingerprint of the spec they were made with."""

    def bucket_checksums(self, width: int, *, vectors: bool) -> dict[str, BucketChecksum]:
        """Add up what the store really holds, by the first `width` characters of the document ids (`sinks.digests`).

        Rows that the store's own TRUNCATE marks cover do not count. With `vectors` their values weigh, else that they are
        there.
        """

    def documents_in(self, bucket: str, width: int, *, vectors: bool) -> Iterator[HeldDocument]:
        """The documents of one bucket, counted as in `bucket_checksums`."""

    def remove(self, revisions: Mapping[str, int]) -> None:
        """Remove rows by the store's own names, unless they were written since; nothing is remembered of them."""


class MaintainedStore(Store, Protocol):
    """What the job does for a store from time to time."""

    def note_progress(self, indexed_as_of_us: int) -> None:
        """Remember that every commit up to that time (microseconds) is searchable."""

    def sweep(self) -> None:
        """Remove what no reader can see: rows a truncation covers, vectors without a chunk for an hour."""


class Sink(WritableStore, VersionedStore, OwnedStore, StoreAudit, MaintainedStore, Protocol):
    """A vector store fed by guarded, per-document writes.

    Writing the same documents twice, in any order and by any number of writers at once, leaves what one writer would:
    a write is refused unless it was planned on the revision the store holds, and a refused one is planned again.
    A reader never sees a document's chunks of two versions, nor a row that a truncation has removed.

    Marks of truncations and progress are those of the whole store, whichever index version this is.
    """

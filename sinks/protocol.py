"""The operations of a vector store, by role. `tests/contract` runs one suite against every store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

    from schemas.documents import ActualDocument, BucketChecksum, DocumentWrite, StoredDocument
    from schemas.ownership import Owner
    from sinks.bulk_loads import Build
    from sinks.versions import BulkLoad, IndexVersion, IndexVersions


@dataclass(frozen=True, slots=True)
class StoreSummary:
    """Counts of a store, for `ragstream status`."""

    documents: int
    chunks: int
    unresolved: Mapping[str, int]
    """Live documents with an unresolved column, by table."""
    indexed_as_of_us: int | None
    """Every commit up to this time (microseconds since the epoch) is searchable."""
    index_versions: IndexVersions | None = None
    """Filled in by `status`."""


class Store(Protocol):
    """The index version of a store that belongs to one embedding model."""

    @property
    def name(self) -> str:
        """The store's name in the configuration and in `status`."""

    @property
    def fingerprint(self) -> str:
        """The model of this index version."""

    def check(self, owner: Owner | None = None) -> None:
        """Connect and compare the store with this configuration. Writes nothing.

        Raises:
            ConfigurationError: other dimensions, another model, missing rights, or another pipeline's store than `owner`'s.
        """

    def prepare(self, owner: Owner | None = None) -> None:
        """Create what is missing of the store and of this index version. Idempotent; several drivers may call it at once.

        With an owner, the store is claimed for that pipeline: the first one to claim it has it.

        Raises:
            ConfigurationError: the store belongs to another pipeline; nothing was written.
        """

    def close(self) -> None:
        """Close connections; the next call opens others."""


class DocumentStore(Store, Protocol):
    """Documents that are replaced whole, each write guarded by the revision it was planned on and by its sequence."""

    def read(self, document_ids: Sequence[str]) -> dict[str, StoredDocument]:
        """The rows and chunk places of those documents that the store has, tombstones included."""

    def read_with_truncations(self, document_ids: Sequence[str]) -> tuple[dict[str, StoredDocument], dict[str, str]]:
        """The same documents, and `truncations` read no earlier; in one round trip if the store can."""

    def truncations(self) -> dict[str, str]:
        """The sequence of the newest TRUNCATE of each table."""

    def write(self, writes: Sequence[DocumentWrite]) -> set[str]:
        """Replace documents under their guards; returns the ids that the guard refused, to be read and planned again.

        Replaying a write changes nothing: its revision is no longer the stored one. The vectors of added chunks are stored
        first (`keep_vectors`); a write whose vector has been swept meanwhile is refused.

        Raises:
            DocumentRefusedError: the store can never take one of the documents; others may have been written.
        """

    def bulk_load(self) -> AbstractContextManager[None]:
        """Defer the refresh: accepted writes are searchable when the context ends, not when each write returns.

        Outside of it a write returns once it can be searched (on OpenSearch Serverless: 10 s later).
        """

    def truncate(self, table: str, sequence: str) -> None:
        """Hide every row of a table up to this sequence from readers, at once (I5). Idempotent; marks only rise."""


class StoredVectors(Store, Protocol):
    """Vectors by content hash, shared by documents."""

    def missing_vectors(self, content_hashes: Sequence[str]) -> set[str]:
        """The hashes that the store has no vector for."""

    def vectors(self, content_hashes: Sequence[str]) -> dict[str, np.ndarray]:
        """The stored vectors of those hashes, float32."""

    def keep_vectors(self, vectors: Mapping[str, np.ndarray], *, replace: bool = False) -> None:
        """Store float32 vectors by content hash, durable on return, so that a kill costs no second model call.

        A stored vector stays as it is, unless `replace`: so a replay changes nothing.
        """

    def vectors_since(self, moment_us: int) -> Iterator[tuple[str, np.ndarray]]:
        """The vectors stored since a time in microseconds (of the store's or its writers' clock), for a cache that was behind."""


class WritableStore(DocumentStore, StoredVectors, Protocol):
    """The roles that the optimistic writer needs."""


class VersionedStore(Store, Protocol):
    """The index versions of a store, one for each embedding model."""

    def index_versions(self) -> IndexVersions | None:
        """The current index versions of the store, of all models; None without a store."""

    def change_index_versions(self, change: Callable[[IndexVersions], IndexVersions]) -> IndexVersions:
        """Compare-and-set the index versions, and what readers of their own use (view, alias); returns the new ones.

        `change` is pure: it is called again where another writer was first, so no change is lost.
        """

    def sibling(self, index_version: IndexVersion) -> Sink:
        """Another index version of the store, by its own connections; closing this one closes it too."""

    def drop(self, number: int) -> None:
        """Delete the data of an index version. Idempotent."""


class BulkLoadedStore(Store, Protocol):
    """A load whose vector index is built once, at its end. Its state is in the store's meta, so every process decides alike.

    Writes are guarded as ever, also those of live writers beside it. A kill anywhere leaves a load that the same calls end.
    """

    @property
    def least_indexed(self) -> int:
        """Vectors from which on the store needs an index."""

    @property
    def most_compared(self) -> int:
        """Vectors that readers compare one by one while there is no index."""

    def bulk_load_now(self) -> BulkLoad | None:
        """The load that is under way."""

    def stored_vectors(self) -> int:
        """About how many vectors there are; 0 only where there is none."""

    def begin_bulk_load(self, load: BulkLoad, new: int = 0) -> bool:
        """Begin a load of `new` vectors (0: not known), if it is worth its while; whether one is under way now. Idempotent.

        A command's load takes the place of another; a job's leaves it as it is.
        """

    def renew_bulk_load(self) -> None:
        """Say that the command that loads is at work."""

    def end_bulk_load(self, on_progress: Callable[[Build], object] = ...) -> bool:
        """Build the vector index, and end the load; False while another process builds. Idempotent; it may take minutes."""

    def filling(self) -> str:
        """A sentence about the load that is under way; empty without one, and for a store that needs no index yet."""


class OwnedStore(Store, Protocol):
    """A store that belongs to one pipeline."""

    def owner(self) -> Owner | None:
        """The owner; None without a store, or where nobody claimed it."""

    def claim(self, owner: Owner, instead_of: Owner | None = None) -> Owner:
        """Compare-and-set the owner from none, or `instead_of`, to `owner`; returns the owner now, whoever was first."""


class StoreAudit(Store, Protocol):
    """The actual content of a store: counted, summed, read out; rows that should not be there are removed."""

    def summary(self) -> StoreSummary:
        """Count what readers see."""

    def documents_by_spec(self) -> dict[tuple[str, str], int]:
        """Count live documents by table and `spec_digest`."""

    def bucket_checksums(self, width: int, *, vectors: bool) -> dict[str, BucketChecksum]:
        """Checksums of the content, by the first `width` characters of the document ids (`sinks.digests`).

        Rows that the store's TRUNCATE marks cover do not count. `vectors` compares the vectors' values, else only whether
        they exist.
        """

    def documents_in(self, bucket: str, width: int, *, vectors: bool) -> Iterator[ActualDocument]:
        """The documents of one bucket, of the same rows as `bucket_checksums`."""

    def remove(self, revisions: Mapping[str, int]) -> None:
        """Delete rows by the store's own names if they still have these revisions. No tombstone is kept."""


class MaintainedStore(Store, Protocol):
    """Periodic work of the job."""

    def note_progress(self, indexed_as_of_us: int) -> None:
        """Store that every commit up to this time (microseconds since the epoch) is searchable. It only rises."""

    def sweep(self) -> None:
        """Delete rows that a TRUNCATE covers, and vectors that no chunk has named for ten minutes. Idempotent."""


class Sink(WritableStore, VersionedStore, BulkLoadedStore, OwnedStore, StoreAudit, MaintainedStore, Protocol):
    """A vector store written by guarded, per-document replacement.

    The same documents written twice, in any order and by any number of concurrent writers, leave what one writer would leave:
    a write is refused unless it was planned on the stored revision, and a refused one is planned again. A reader never sees
    chunks of two versions of a document, nor a truncated row. Truncations and progress are shared by all index versions.
    """

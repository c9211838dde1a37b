"""The base of every sink: one index version of a store, chosen by its model, and its siblings."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Any, Protocol, Self

from schemas.documents import DocumentWrite, StoredDocument
from schemas.ownership import Owner
from sinks.bulk_loads import HEADROOM, MOST_COMPARED_BYTES, Build, filling, is_worth
from sinks.identity import Place
from sinks.versions import FIRST, BulkLoad, IndexVersion, IndexVersions
from transforms.documents.languages import OWN, TablesOf, language_key

UNUSED_MS = 600_000
"""The age at which a vector that no chunk names is swept."""


def now_ms() -> int:
    """This machine's clock, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class StoreConfig(Protocol):
    """The part of a store's configuration that this base needs."""

    @property
    def place(self) -> Place:
        """Where the store is."""

    @property
    def language(self) -> str:
        """The store's own."""


class OneIndexVersion[C: StoreConfig](ABC):
    """The base of every `Sink`: its index version, and the siblings of the same store, each opened once."""

    least_indexed = 0
    """As `Sink.least_indexed`."""

    def __init__(self, config: C, fingerprint: str, dimensions: int) -> None:
        """Connects on first use."""
        self._config = config
        self._fingerprint = fingerprint
        self._dimensions = dimensions
        self.most_compared = MOST_COMPARED_BYTES // (4 * dimensions)
        """As `Sink.most_compared`."""
        self._number: int | None = None
        self._siblings: dict[int, Self] = {}
        self._learned: frozenset[tuple[str, str]] = frozenset()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without siblings, which have connections."""
        return self.__dict__ | {"_siblings": {}}

    @property
    def name(self) -> str:
        """The store's name."""
        return self._config.place.sink

    @property
    def fingerprint(self) -> str:
        """The model of this index version."""
        return self._fingerprint

    def check(self, owner: Owner | None = None) -> None:
        """Compare the store with this configuration, and its owner with `owner`. Writes nothing."""
        if owner is not None:
            self._config.place.check_owner(self.owner(), owner)
        self._check()

    def prepare(self, owner: Owner | None = None) -> None:
        """Check the owner, create what is missing, then claim the store. Idempotent."""
        if owner is not None:
            self._config.place.check_owner(self.owner(), owner)
        self._create_missing()
        if owner is not None and owner.lake:
            self._config.place.check_owner(self.claim(owner), owner)

    @abstractmethod
    def owner(self) -> Owner | None:
        """As `Sink.owner`."""

    @abstractmethod
    def claim(self, owner: Owner, instead_of: Owner | None = None) -> Owner:
        """As `Sink.claim`."""

    @abstractmethod
    def _check(self) -> None:
        """Connect; raise ConfigurationError if a pipeline of this model cannot write to the store. Writes nothing."""

    @abstractmethod
    def _create_missing(self) -> None:
        """Create the store, or this index version of it. Idempotent; several drivers may call it at once."""

    @abstractmethod
    def index_versions(self) -> IndexVersions | None:
        """As `Sink.index_versions`."""

    @abstractmethod
    def change_index_versions(self, change: Callable[[IndexVersions], IndexVersions]) -> IndexVersions:
        """As `Sink.change_index_versions`."""

    @abstractmethod
    def read(self, document_ids: Sequence[str]) -> dict[str, StoredDocument]:
        """As `Sink.read`."""

    @abstractmethod
    def truncations(self) -> dict[str, str]:
        """As `Sink.truncations`."""

    def read_with_truncations(self, document_ids: Sequence[str]) -> tuple[dict[str, StoredDocument], dict[str, str]]:
        """As `Sink.read_with_truncations`."""
        return self.read(document_ids), self.truncations()

    def sibling(self, index_version: IndexVersion) -> Self:
        """Open an index version once, until this sink is closed."""
        if index_version.number not in self._siblings:
            other = type(self)(self._config, index_version.fingerprint, index_version.dimensions)
            other._number = index_version.number  # noqa: SLF001 - of its own kind
            self._siblings[index_version.number] = other
        return self._siblings[index_version.number]

    def bulk_load(self) -> AbstractContextManager[None]:
        """No context: a write is searchable at once, at no cost."""
        return nullcontext()

    def begin_bulk_load(self, load: BulkLoad, new: int = 0) -> bool:
        """As `Sink.begin_bulk_load`: the meta first, then the index, so that a kill between leaves an index and a load."""
        present = self.stored_vectors()
        before = self.bulk_load_now()
        compared = self.most_compared // (HEADROOM if load.renewed_us is None else 1)
        if before is None and not is_worth(present, new, compared):
            return False
        expected = replace(load, expected=present + new if new else load.expected)
        if before is None or load.renewed_us is not None:
            self.change_index_versions(lambda versions: versions.loading(self._fingerprint, expected))
        self._drop_index()
        return True

    def renew_bulk_load(self) -> None:
        """As `Sink.renew_bulk_load`."""
        now_us = time.time_ns() // 1000
        self._change_bulk_load(lambda stored: replace(stored, renewed_us=now_us))

    def _change_bulk_load(self, change: Callable[[BulkLoad], BulkLoad | None]) -> None:
        """Change the stored load of this index version, if there is one; None ends it."""

        def changed(versions: IndexVersions) -> IndexVersions:
            own = versions.of(self._fingerprint)
            load = own.bulk_load if own is not None else None
            return versions if load is None else versions.loading(self._fingerprint, change(load))

        self.change_index_versions(changed)

    def end_bulk_load(self, on_progress: Callable[[Build], object] = lambda _: None) -> bool:
        """As `Sink.end_bulk_load`; a load that another process began meanwhile stays."""
        load = self.bulk_load_now()
        if load is None and self._is_indexed():
            return True
        if not self._build_index(on_progress):
            return False

        if load is not None:
            self._change_bulk_load(lambda stored: None if stored.since_us == load.since_us else stored)
        return True

    def filling(self) -> str:
        """As `Sink.filling`."""
        load = self.bulk_load_now()
        if load is None:
            return ""
        present, build = self.stored_vectors(), self._building()
        needs_index = build is not None or load.expected is not None or present >= self.least_indexed
        return filling(load, present, build) if needs_index else ""

    @abstractmethod
    def stored_vectors(self) -> int:
        """As `Sink.stored_vectors`."""

    @abstractmethod
    def _drop_index(self) -> None:
        """Take away what slows a load down. Idempotent."""

    @abstractmethod
    def _build_index(self, on_progress: Callable[[Build], object]) -> bool:
        """Bring back what `_drop_index` took away; False while another process does. Idempotent."""

    def _is_indexed(self) -> bool:
        """Whether the vector index is there, whatever the meta says: two loads at once may leave none."""
        return True

    def _building(self) -> Build | None:
        """How far the index is built that is being built now."""
        return None

    def bulk_load_now(self) -> BulkLoad | None:
        """Read it from the meta."""
        versions = self.index_versions()
        return None if versions is None else self._own(versions).bulk_load

    def close(self) -> None:
        """Close the siblings."""
        self._learned = frozenset()
        for other in self._siblings.values():
            other.close()
        self._siblings.clear()

    def _language_of(self, write: DocumentWrite) -> str:
        """The key of a document's language in this store."""
        return language_key(write.language, self._config.language)

    @contextmanager
    def _learning(self, writes: Sequence[DocumentWrite]) -> Iterator[TablesOf]:
        """The tables, by language, of writes in languages that this sink has not noted in the store; then they are noted.

        After an error all are noted again, as the store may have been dropped and made anew.
        """
        spoken = {(self._language_of(write), write.table) for write in writes if write.chunks}
        new = sorted((name, table) for name, table in spoken - self._learned if name != OWN)
        try:
            yield {name: [table for _, table in pairs] for name, pairs in groupby(new, key=itemgetter(0))}
        except BaseException:
            self._learned = frozenset()
            raise
        self._learned |= set(new)

    def _own(self, index_versions: IndexVersions) -> IndexVersion:
        """The index version of this model; raise ConfigurationError if there is none."""
        return self._config.place.check_index_version(index_versions, self._fingerprint, self._dimensions)

    def _version_number(self) -> int:
        """The number of this model's index version, read once it exists; of the first one without a store."""
        if self._number is None and (index_versions := self.index_versions()) is not None:
            self._number = self._own(index_versions).number
        return FIRST if self._number is None else self._number

"""What every sink is: one index version of its store, found by the model that fills it, and the way to the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, Self

from sinks.versions import FIRST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schemas.documents import StoredDocument
    from schemas.ownership import Owner
    from sinks.identity import Place
    from sinks.versions import IndexVersion, IndexVersions


class StoreConfig(Protocol):
    """What is asked of a store's configuration, whichever store it is."""

    @property
    def place(self) -> Place:
        """Where the store is."""
        ...


class OneIndexVersion[C: StoreConfig](ABC):
    """The base of every `Sink`: which index version it is, and the others of the same store, opened once."""

    def __init__(self, config: C, fingerprint: str, dimensions: int) -> None:
        """Keep the configuration and the model's identity; nothing is opened yet."""
        self._config = config
        self._fingerprint = fingerprint
        self._dimensions = dimensions
        self._number: int | None = None
        self._siblings: dict[int, Self] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle as configuration, without the others, which have connections."""
        return self.__dict__ | {"_siblings": {}}

    @property
    def name(self) -> str:
        """The store's name."""
        return self._config.place.sink

    @property
    def fingerprint(self) -> str:
        """The model whose index version this is."""
        return self._fingerprint

    def check(self, owner: Owner | None = None) -> None:
        """Compare what stands there with what this pipeline would write."""
        if owner is not None:
            self._config.place.check_owner(self.owner(), owner)
        self._check()

    def prepare(self, owner: Owner | None = None) -> None:
        """Create what is missing, between a look at whose the store is and the claim that makes it this pipeline's."""
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
        """Connect; raise ConfigurationError for what no pipeline of this model could write to. Writes nothing."""

    @abstractmethod
    def _create_missing(self) -> None:
        """Create the store, or this index version of it; several drivers at once create the same."""

    @abstractmethod
    def index_versions(self) -> IndexVersions | None:
        """As `Sink.index_versions`."""

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
        """Open it once, until this one is closed."""
        if index_version.number not in self._siblings:
            other = type(self)(self._config, index_version.fingerprint, index_version.dimensions)
            other._number = index_version.number  # noqa: SLF001 - of its own kind
            self._siblings[index_version.number] = other
        return self._siblings[index_version.number]

    def bulk_load(self) -> AbstractContextManager[None]:
        """As writes otherwise, where searchable at once costs nothing."""
        return nullcontext()

    def close(self) -> None:
        """Close the others."""
        for other in self._siblings.values():
            other.close()
        self._siblings.clear()

    def _mine(self, held: IndexVersions) -> IndexVersion:
        """The one that this model fills; raise ConfigurationError where there is none."""
        return self._config.place.check_index_version(held, self._fingerprint, self._dimensions)

    def _version_number(self) -> int:
        """The number of this model's index version, asked for until it is known; of the first where there is no store yet."""
        if self._number is None and (held := self.index_versions()) is not None:
            self._number = self._mine(held).number
        return FIRST if self._number is None else self._number

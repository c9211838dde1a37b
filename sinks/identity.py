"""The identity of a store, its model, dimensions and owner, compared with a configuration's: the same errors for every store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from schemas.ownership import Owner
    from sinks.versions import IndexVersion, IndexVersions


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store is: the sink's name, and the table, index or collection that its configuration names."""

    sink: str
    name: str
    kind: Literal["table", "index", "collection"]

    def no_store(self) -> ConfigurationError:
        """The error of a reader whose store nobody has created."""
        return ConfigurationError(
            f"sink {self.sink}: there is no store {self.name} yet",
            condition="STORE_EMPTY",
            hint="start the pipeline with `ragstream run`, or fill the store with `ragstream rebuild`",
        )

    def check_owner(self, stored: Owner | None, owner: Owner) -> None:
        """Raise ConfigurationError if the store belongs to another pipeline."""
        owner.refuse_other(stored, f"sink {self.sink}: the store {self.name}", self.sink, self.kind)

    def check_index_version(self, index_versions: IndexVersions, fingerprint: str, dimensions: int) -> IndexVersion:
        """The index version of a model; raise ConfigurationError if there is none."""
        version = index_versions.of(fingerprint) or index_versions.active
        self.check_dimensions(version.dimensions, dimensions)
        self.check_model(version.fingerprint, fingerprint)
        return version

    def check_model_of(self, index_versions: IndexVersions, number: int, fingerprint: str) -> None:
        """Raise ConfigurationError if the index version of that number (else the active one) is another model's."""
        version = next((v for v in index_versions.every if v.number == number), index_versions.active)
        self.check_model(version.fingerprint, fingerprint)

    def check_model(self, stored: str, fingerprint: str) -> None:
        """Raise ConfigurationError if another model filled the store."""
        if stored != fingerprint:
            raise ConfigurationError(
                f"sink {self.sink}: the store {self.name} was filled by another model "
                f"({stored or 'unknown'}) than the pipeline's ({fingerprint})",
                condition="OTHER_MODEL",
                hint=f"configure the model the store was filled with, move it by `ragstream migrate --to`, "
                f"or name another {self.kind}",
            )

    def check_dimensions(self, stored: int | None, dimensions: int) -> None:
        """Raise ConfigurationError if the store's vectors have another length."""
        if stored != dimensions:
            raise ConfigurationError(
                f"sink {self.sink}: the store {self.name} holds vectors of {stored} dimensions, "
                f"the embedding model gives {dimensions}",
                condition="WRONG_DIMENSIONS",
                hint=f"set embedding.dimensions to the store's, move it by `ragstream migrate --to`, "
                f"or name another {self.kind}",
            )

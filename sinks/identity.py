"""Which model and which pipeline filled a store, compared with the ones that ask: the same words for every store."""

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

    def check_owner(self, held: Owner | None, mine: Owner) -> None:
        """Raise ConfigurationError where the store belongs to another pipeline."""
        mine.refuse_other(held, f"sink {self.sink}: the store {self.name}", self.sink, self.kind)

    def check_index_version(self, held: IndexVersions, fingerprint: str, dimensions: int) -> IndexVersion:
        """The index version that a model fills; raise ConfigurationError where there is none."""
        found = held.of(fingerprint) or held.active
        self.check_dimensions(found.dimensions, dimensions)
        self.check_model(found.fingerprint, fingerprint)
        return found

    def check_active(self, held: IndexVersions, number: int, fingerprint: str) -> None:
        """Raise ConfigurationError where an index version is not the one of the model that asks."""
        mine = next((each for each in held.every if each.number == number), held.active)
        self.check_model(mine.fingerprint, fingerprint)

    def check_model(self, held: object, fingerprint: str) -> None:
        """Raise ConfigurationError where another model filled the store."""
        if held != fingerprint:
            raise ConfigurationError(
                f"sink {self.sink}: the store {self.name} was filled by another model "
                f"({held or 'unknown'}) than the pipeline's ({fingerprint})",
                condition="OTHER_MODEL",
                hint=f"configure the model the store was filled with, move it by `ragstream migrate --to`, "
                f"or name another {self.kind}",
            )

    def check_dimensions(self, held: object, dimensions: int) -> None:
        """Raise ConfigurationError where the store's vectors have another length; `held` may be a number or its text."""
        if held not in {dimensions, str(dimensions)}:
            raise ConfigurationError(
                f"sink {self.sink}: the store {self.name} holds vectors of {held} dimensions, "
                f"the embedding model gives {dimensions}",
                condition="WRONG_DIMENSIONS",
                hint=f"set embedding.dimensions to the store's, move it by `ragstream migrate --to`, "
                f"or name another {self.kind}",
            )

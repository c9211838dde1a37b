"""What a store in DocumentDB says of itself, and whether that is what a pipeline needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schemas.errors import ConfigurationError
from sinks.documentdb_schema import LAYOUT, MOST_DIMENSIONS, Names

if TYPE_CHECKING:
    from sinks.documentdb_client import DocumentDBClient
    from sinks.documentdb_config import DocumentDBConfig

_FACTS, _PROGRESS, _TRUNCATION = "facts", "progress", "truncation of "


@dataclass(frozen=True, slots=True)
class Told:
    """The few facts that generations share, as they are now."""

    fingerprint: str
    dimensions: int
    truncations: Mapping[str, str]
    """The newest TRUNCATE of each table, by sequence."""
    progress: int | None
    """Every commit up to this time (microseconds) is searchable."""


class Meta:
    """Reads and raises the facts; two writers at once do not lose either's."""

    def __init__(self, client: DocumentDBClient, config: DocumentDBConfig) -> None:
        """Take the client."""
        self._client = client
        self._config = config
        self._collection = Names(config.collection).meta

    def found(self) -> Told | None:
        """The facts; None where there is no store yet."""
        fields = ("fingerprint", "dimensions", "as_of_us", "table", "sequence")
        held = {each["_id"]: each for each in self._client.find(self._collection, {}, fields)}
        if _FACTS not in held:
            return None
        marks = {each["table"]: each["sequence"] for each in held.values() if "table" in each}
        facts, progress = held[_FACTS], held.get(_PROGRESS, {})
        return Told(facts["fingerprint"], facts["dimensions"], marks, progress.get("as_of_us"))

    def told(self) -> Told:
        """The facts.

        Raises:
            ConfigurationError: there is no store; a write would make collections without their indexes.
        """
        found = self.found()
        if found is None:
            raise ConfigurationError(
                f"sink {self._config.name}: there is no store {self._config.collection} in {self._config.database} yet",
                condition="STORE_EMPTY", hint="run `ragstream run` or `ragstream rebuild` to create it",
            )  # fmt: skip
        return found

    def create(self, fingerprint: str, dimensions: int) -> None:
        """Say which model fills the store, unless it says so already."""
        mine = {"fingerprint": fingerprint, "dimensions": dimensions, "layout": LAYOUT}
        self._client.upsert(self._collection, _FACTS, {"$setOnInsert": mine})

    def truncated(self, table: str, sequence: str) -> None:
        """Raise the mark of a table."""
        update = {"$max": {"sequence": sequence}, "$set": {"table": table}}
        self._client.upsert(self._collection, _TRUNCATION + table, update)

    def reached(self, as_of_us: int) -> None:
        """Raise the progress."""
        self._client.upsert(self._collection, _PROGRESS, {"$max": {"as_of_us": as_of_us}})


def check_indexable(config: DocumentDBConfig, dimensions: int) -> None:
    """Raise ConfigurationError for vectors that have no index."""
    if dimensions > MOST_DIMENSIONS:
        raise ConfigurationError(
            f"sink {config.name}: DocumentDB indexes vectors of {MOST_DIMENSIONS} dimensions at most, "
            f"the embedding model gives {dimensions}",
            condition="TOO_MANY_DIMENSIONS",
            hint="set embedding.dimensions to fewer, or take another model or store",
        )


def check_collections(config: DocumentDBConfig, found: set[str], *, is_store: bool) -> None:
    """Raise ConfigurationError for collections that no pipeline made, or that are missing."""
    names = Names(config.collection)
    mine = {names.documents, names.vectors}
    if is_store and (lost := sorted(mine - found)):
        raise ConfigurationError(
            f"sink {config.name}: the store {config.collection} lacks the collection {lost[0]}",
            condition="STORE_EMPTY",
            hint=f"drop {names.meta} too, then run `ragstream rebuild` to fill the store again",
        )
    if not is_store and (strange := sorted(found & {*mine, names.meta})):
        raise ConfigurationError(
            f"sink {config.name}: there is a collection {strange[0]} that is no store of a pipeline",
            condition="FOREIGN_COLLECTION",
            hint="name another collection; this one was made by somebody else",
        )


def check_index(config: DocumentDBConfig, listed: list[Mapping[str, Any]], dimensions: int) -> None:
    """Raise ConfigurationError for vectors that are not indexed, or of another length."""
    index = next((each for each in listed if "vectorOptions" in each), None)
    if index is None:
        raise ConfigurationError(
            f"sink {config.name}: the vectors of {config.collection} have no index",
            condition="NO_VECTOR_INDEX",
            hint="a cluster of version 5.0 or later makes one at `ragstream run`; elastic clusters have none",
        )
    config.place.check_dimensions(index["vectorOptions"].get("dimensions"), dimensions)

"""What a store in DocumentDB says of itself, and whether that is what a pipeline needs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schemas import ownership
from schemas.errors import ConfigurationError
from sinks.documentdb.schema import LAYOUT, MOST_DIMENSIONS, Names
from sinks.versions import IndexVersions, from_json, of_facts, to_json

if TYPE_CHECKING:
    from schemas.ownership import Owner
    from sinks.documentdb.client import DocumentDBClient
    from sinks.documentdb.config import DocumentDBConfig

_FACTS, _OWNER, _PROGRESS, _TRUNCATION = "facts", "owner", "progress", "truncation of "


@dataclass(frozen=True, slots=True)
class Told:
    """The few facts that index versions share, as they are now."""

    index_versions: IndexVersions
    version: int
    """Of the index versions: how often they were changed."""
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
        """The facts; None where there is no store yet.

        Raises:
            ConfigurationError: its words are another language's.
        """
        fields = ("fingerprint", "dimensions", "as_of_us", "table", "sequence", "generations", "version", "language")
        held = {each["_id"]: each for each in self._client.find(self._collection, {}, fields)}
        if _FACTS not in held:
            return None
        marks = {each["table"]: each["sequence"] for each in held.values() if "table" in each}
        facts = held[_FACTS]
        _check_language(self._config, facts.get("language"))
        index_versions = from_json(json.loads(facts["generations"])) if "generations" in facts else of_facts(facts)
        return Told(index_versions, facts.get("version", 0), marks, held.get(_PROGRESS, {}).get("as_of_us"))

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
        """Say which model fills the store, and the language of its words, unless it says so already."""
        mine = {
            "fingerprint": fingerprint, "dimensions": dimensions, "layout": LAYOUT, "language": self._config.language,
        }  # fmt: skip
        self._client.upsert(self._collection, _FACTS, {"$setOnInsert": mine})

    def owner(self) -> Owner | None:
        """Whose the store is; None where there is none, or nobody claimed it."""
        (held, *_) = (*self._client.find(self._collection, {"_id": _OWNER}, ("owner",)), None)
        return ownership.from_json(held["owner"]) if held else None

    def claim(self, mine: Owner, instead_of: Owner | None) -> Owner:
        """Make a store that is nobody's, or still another's, a pipeline's; whose it is then."""
        named = {"owner": ownership.to_json(mine)}
        self._client.upsert(self._collection, _OWNER, {"$setOnInsert": named})
        if instead_of is not None:
            before = {"_id": _OWNER, "owner": ownership.to_json(instead_of)}
            self._client.update(self._collection, before, {"$set": named})
        return self.owner() or mine

    def change_index_versions(self, told: Callable[[IndexVersions], IndexVersions]) -> IndexVersions:
        """Replace the index versions by what they become."""
        from pymongo import UpdateOne

        while True:
            held = self.told()
            after = told(held.index_versions)
            if after == held.index_versions:
                return after
            fields = {"generations": json.dumps(to_json(after)), "version": held.version + 1}
            as_read = {"_id": _FACTS, "version": held.version or {"$exists": False}}
            if self._client.bulk(self._collection, [UpdateOne(as_read, {"$set": fields})]).matched:
                return after

    def truncated(self, table: str, sequence: str) -> None:
        """Raise the mark of a table."""
        update = {"$max": {"sequence": sequence}, "$set": {"table": table}}
        self._client.upsert(self._collection, _TRUNCATION + table, update)

    def reached(self, as_of_us: int) -> None:
        """Raise the progress; one that lies in the future is no progress."""
        future = {"_id": _PROGRESS, "as_of_us": {"$gt": time.time_ns() // 1000}}
        self._client.update(self._collection, future, {"$set": {"as_of_us": as_of_us}})
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


def check_collections(config: DocumentDBConfig, names: Names, found: set[str], *, is_store: bool) -> None:
    """Raise ConfigurationError for collections that no pipeline made, or that are missing."""
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


def _check_language(config: DocumentDBConfig, language: str | None) -> None:
    """Words that were stemmed for another language would match no question's; a store from before it was noted tells none."""
    if language not in (None, config.language):
        raise ConfigurationError(
            f"sink {config.name}: the words of {config.collection} are stored as {language}, `language` says {config.language}",
            condition="OTHER_LANGUAGE",
            hint=f"say `language: {language}`, or name another collection and run `ragstream rebuild {config.name}`",
        )

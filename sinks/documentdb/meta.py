"""The meta collection of a store in DocumentDB: index versions, owner, truncations, progress; and the checks of a store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from schemas import ownership
from schemas.errors import ConfigurationError
from schemas.ownership import Owner
from sinks.documentdb.client import DocumentDBClient
from sinks.documentdb.config import DocumentDBConfig
from sinks.documentdb.schema import LAYOUT, MOST_DIMENSIONS, Names
from sinks.versions import IndexVersions, from_json, of_facts, to_json
from transforms.documents.languages import TablesOf

_FACTS, _OWNER, _PROGRESS, _TRUNCATION, _LANGUAGE = "facts", "owner", "progress", "truncation of ", "language of "


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts that index versions share, of one read."""

    index_versions: IndexVersions
    version: int
    """The number of changes of the index versions, for compare-and-set."""
    truncations: Mapping[str, str]
    """The sequence of the newest TRUNCATE of each table."""
    progress: int | None
    """Every commit up to this time (microseconds since the epoch) is searchable."""
    tables_of: TablesOf
    """The tables that have documents in other languages than the store's, by language."""


class Meta:
    """The facts that index versions share. Every change is atomic, so no concurrent one is lost."""

    def __init__(self, client: DocumentDBClient, config: DocumentDBConfig) -> None:
        self._client = client
        self._config = config
        self._collection = Names(config.collection).meta

    def read(self) -> Facts | None:
        """The facts; None without a store.

        Raises:
            ConfigurationError: the store's words were stemmed for another language.
        """
        fields = (
            "fingerprint", "dimensions", "as_of_us", "table", "sequence", "generations", "version", "language", "tables",
        )  # fmt: skip
        documents = {document["_id"]: document for document in self._client.find(self._collection, {}, fields)}
        if _FACTS not in documents:
            return None
        truncations = {d["table"]: d["sequence"] for d in documents.values() if "table" in d}
        facts = documents[_FACTS]
        _check_language(self._config, facts.get("language"))
        index_versions = from_json(json.loads(facts["generations"])) if "generations" in facts else of_facts(facts)
        progress = documents.get(_PROGRESS, {}).get("as_of_us")
        tables_of = {d["language"]: d["tables"] for d in documents.values() if "tables" in d}
        return Facts(index_versions, facts.get("version", 0), truncations, progress, tables_of)

    def facts(self) -> Facts:
        """The facts of an existing store.

        Raises:
            ConfigurationError: there is no store; a write would create collections without their indexes.
        """
        facts = self.read()
        if facts is None:
            raise self._config.place.no_store()
        return facts

    def create(self, fingerprint: str, dimensions: int) -> None:
        """Write the model that fills the store and the language of its words, unless they are written."""
        facts = {
            "fingerprint": fingerprint, "dimensions": dimensions, "layout": LAYOUT, "language": self._config.language,
        }  # fmt: skip
        self._client.upsert(self._collection, _FACTS, {"$setOnInsert": facts})

    def owner(self) -> Owner | None:
        """The owner; None without a store, or where nobody claimed it."""
        documents = self._client.get(self._collection, [_OWNER], ["owner"])
        return ownership.from_json(documents[_OWNER]["owner"]) if documents else None

    def claim(self, claimant: Owner, instead_of: Owner | None) -> Owner:
        """Compare-and-set the owner from none, or `instead_of`; the owner then."""
        fields = {"owner": ownership.to_json(claimant)}
        self._client.upsert(self._collection, _OWNER, {"$setOnInsert": fields})
        if instead_of is not None:
            before = {"_id": _OWNER, "owner": ownership.to_json(instead_of)}
            self._client.update(self._collection, before, {"$set": fields})
        return self.owner() or claimant

    def change_index_versions(self, change: Callable[[IndexVersions], IndexVersions]) -> IndexVersions:
        """Compare-and-set the index versions; `change` is called again after a conflict."""
        from pymongo import UpdateOne

        while True:
            facts = self.facts()
            after = change(facts.index_versions)
            if after == facts.index_versions:
                return after
            fields = {"generations": json.dumps(to_json(after)), "version": facts.version + 1}
            as_read = {"_id": _FACTS, "version": facts.version or {"$exists": False}}
            if self._client.bulk(self._collection, [UpdateOne(as_read, {"$set": fields})]).matched:
                return after

    def raise_truncation(self, table: str, sequence: str) -> None:
        """Raise the mark of a table."""
        update = {"$max": {"sequence": sequence}, "$set": {"table": table}}
        self._client.upsert(self._collection, _TRUNCATION + table, update)

    def learn(self, tables_of: TablesOf) -> None:
        """Note the tables that have documents in a language."""
        for language, tables in tables_of.items():
            update = {"$set": {"language": language}, "$addToSet": {"tables": {"$each": sorted(tables)}}}
            self._client.upsert(self._collection, _LANGUAGE + language, update)

    def raise_progress(self, as_of_us: int) -> None:
        """Raise the progress; a stored one in the future is replaced."""
        future = {"_id": _PROGRESS, "as_of_us": {"$gt": time.time_ns() // 1000}}
        self._client.update(self._collection, future, {"$set": {"as_of_us": as_of_us}})
        self._client.upsert(self._collection, _PROGRESS, {"$max": {"as_of_us": as_of_us}})


def check_indexable(config: DocumentDBConfig, dimensions: int) -> None:
    """Raise ConfigurationError for vectors that are too long for an index."""
    if dimensions > MOST_DIMENSIONS:
        raise ConfigurationError(
            f"sink {config.name}: DocumentDB indexes vectors of {MOST_DIMENSIONS} dimensions at most, "
            f"the embedding model gives {dimensions}",
            condition="TOO_MANY_DIMENSIONS",
            hint="set embedding.dimensions to fewer, or take another model or store",
        )


def check_collections(config: DocumentDBConfig, names: Names, existing: set[str], *, is_store: bool) -> None:
    """Raise ConfigurationError for missing collections of a store, or foreign ones where it is to be created."""
    required = {names.documents, names.vectors}
    if is_store and (lost := sorted(required - existing)):
        raise ConfigurationError(
            f"sink {config.name}: the store {config.collection} lacks the collection {lost[0]}",
            condition="STORE_EMPTY",
            hint=f"drop {names.meta} too, then run `ragstream rebuild` to fill the store again",
        )
    if not is_store and (foreign := sorted(existing & {*required, names.meta})):
        raise ConfigurationError(
            f"sink {config.name}: there is a collection {foreign[0]} that is no store of a pipeline",
            condition="FOREIGN_COLLECTION",
            hint="name another collection; this one was made by somebody else",
        )


def check_index(config: DocumentDBConfig, listed: list[Mapping[str, Any]], dimensions: int) -> None:
    """Raise ConfigurationError if the vectors have no index, or another length."""
    index = next((index for index in listed if "vectorOptions" in index), None)
    if index is None:
        raise ConfigurationError(
            f"sink {config.name}: the vectors of {config.collection} have no index",
            condition="NO_VECTOR_INDEX",
            hint="a cluster of version 5.0 or later makes one at `ragstream run`; elastic clusters have none",
        )
    config.place.check_dimensions(index["vectorOptions"].get("dimensions"), dimensions)


def _check_language(config: DocumentDBConfig, language: str | None) -> None:
    """Raise ConfigurationError for words of another language, which no question matches; older stores do not name theirs."""
    if language not in (None, config.language):
        raise ConfigurationError(
            f"sink {config.name}: the words of {config.collection} are stored as {language}, `language` says {config.language}",
            condition="OTHER_LANGUAGE",
            hint=f"say `language: {language}`, or name another collection and run `ragstream rebuild {config.name}`",
        )

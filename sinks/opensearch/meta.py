"""The meta index of a store in OpenSearch: index versions, owner, truncations, progress; and the checks of its other indexes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from schemas.errors import ConfigurationError
from schemas.ownership import Owner
from sinks.opensearch.client import Action, OpenSearchClient, unchanged
from sinks.opensearch.config import OpenSearchConfig
from sinks.opensearch.schema import LAYOUT, Names
from sinks.versions import IndexVersions, from_json, of_facts, to_json
from transforms.documents.languages import TablesOf, united

_FACTS, _INDEX_VERSIONS, _OWNER, _TRUNCATIONS, _LANGUAGES = "facts", "generations", "owner", "truncations", "languages"
"""Ids of documents in the meta index."""


class Meta:
    """The facts that index versions share. Every change is a compare-and-set, so no concurrent one is lost."""

    def __init__(self, client: OpenSearchClient, names: Names) -> None:
        self._client = client
        self._index = names.meta

    def index_versions(self) -> IndexVersions | None:
        """The index versions, by one request; None without a store."""
        try:
            documents = self._client.get(self._index, [_FACTS, _INDEX_VERSIONS])
        except ConfigurationError as error:
            if error.condition != "STORE_EMPTY":
                raise
            return None
        stored = {name: json.loads(document["_source"]["value"]) for name, document in documents.items()}
        if _INDEX_VERSIONS in stored:
            return from_json(stored[_INDEX_VERSIONS])
        return of_facts(stored[_FACTS]) if _FACTS in stored else None

    def created(self, fingerprint: str, dimensions: int) -> IndexVersions:
        """Write the facts of the model that fills the store, unless they are written."""
        facts = {"fingerprint": fingerprint, "dimensions": str(dimensions), "layout": LAYOUT}
        self.update(_FACTS, lambda stored: stored or facts)
        return self._existing()

    def change_index_versions(self, change: Callable[[IndexVersions], IndexVersions]) -> IndexVersions:
        """Compare-and-set the index versions."""
        self._existing()
        first = of_facts(self._get(_FACTS))
        return from_json(
            self.update(_INDEX_VERSIONS, lambda stored: to_json(change(from_json(stored) if stored else first)))
        )

    def owner(self) -> Owner | None:
        """The owner; None without a store, or where nobody claimed it."""
        stored = {} if self.index_versions() is None else self._get(_OWNER)
        return Owner(**stored) if stored else None

    def claim(self, claimant: Owner, instead_of: Owner | None) -> Owner:
        """Compare-and-set the owner from none, or `instead_of`; the owner then."""
        before = asdict(instead_of) if instead_of else {}
        return Owner(**self.update(_OWNER, lambda stored: asdict(claimant) if stored in ({}, before) else stored))

    def truncations(self) -> dict[str, str]:
        """The sequence of the newest TRUNCATE of each table."""
        return self._get(_TRUNCATIONS)

    def of_searches(self) -> tuple[dict[str, str], TablesOf]:
        """The truncations, and the tables by language, by one request."""
        documents = self._client.get(self._index, [_TRUNCATIONS, _LANGUAGES])
        stored = {name: json.loads(document["_source"]["value"]) for name, document in documents.items()}
        return stored.get(_TRUNCATIONS, {}), stored.get(_LANGUAGES, {})

    def learn(self, tables_of: TablesOf) -> None:
        """Compare-and-set the tables of other languages than the store's, with these."""
        self.update(_LANGUAGES, lambda noted: united(noted, tables_of))

    def progress(self) -> int | None:
        """Every commit up to this time (microseconds since the epoch) is searchable."""
        return self._get("progress").get("as_of_us")

    def update(self, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        """Compare-and-set the value of a name, empty at first; `change` is called again after a conflict."""
        while True:
            document = self._client.get(self._index, [name]).get(name)
            stored = json.loads(document["_source"]["value"]) if document else {}
            changed = change(stored)
            if document and changed == stored:
                return changed
            target = {"_index": self._index, "_id": name, **(unchanged(document) if document else {})}
            action = Action("index" if document else "create", target, {"value": json.dumps(changed)})
            if self._client.bulk([action])[0]["status"] != HTTPStatus.CONFLICT:
                return changed

    def _existing(self) -> IndexVersions:
        index_versions = self.index_versions()
        if index_versions is None:
            raise self._client.refusal(404, "index_not_found_exception")
        return index_versions

    def _get(self, name: str) -> dict[str, Any]:
        documents = self._client.get(self._index, [name])
        value: dict[str, Any] = json.loads(documents[name]["_source"]["value"]) if documents else {}
        return value


def check_mapping(config: OpenSearchConfig, index: str, mapping: Mapping[str, Any], dimensions: int) -> None:
    """Raise ConfigurationError for an index that no pipeline created, or of other dimensions."""
    chunks = mapping.get("properties", {}).get("chunks", {}).get("properties", {})
    if mapping.get("dynamic") != "strict" or "embedding" not in chunks:
        raise ConfigurationError(
            f"sink {config.name}: there is an index {index} that is no store of a pipeline",
            condition="FOREIGN_INDEX",
            hint="name another index; this one was made by somebody else",
        )
    config.place.check_dimensions(chunks["embedding"].get("dimension"), dimensions)


def check_plugin(config: OpenSearchConfig, client: OpenSearchClient) -> None:
    """Raise ConfigurationError if the server lacks k-NN; without the right to ask, which nothing else needs, it is assumed."""
    try:
        client.call("GET", "/_plugins/_knn/stats")
    except ConfigurationError as error:
        if error.condition != "MISSING_RIGHTS":
            raise ConfigurationError(
                f"sink {config.name}: the server has no k-NN plugin",
                condition="NO_KNN",
                hint="install opensearch-knn on it",
            ) from None

"""What a store in OpenSearch says of itself, and whether that is what a pipeline needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from schemas.errors import ConfigurationError
from schemas.ownership import Owner
from sinks.opensearch.client import Action
from sinks.opensearch.schema import LAYOUT
from sinks.versions import from_json, of_facts, to_json

if TYPE_CHECKING:
    from sinks.opensearch.client import OpenSearchClient
    from sinks.opensearch.config import OpenSearchConfig
    from sinks.opensearch.schema import Names
    from sinks.versions import IndexVersions


_FACTS, _GENERATIONS, _OWNER = "facts", "generations", "owner"


class Meta:
    """The few facts that index versions share: the model, the marks of truncations, the progress. Read as they are now."""

    def __init__(self, client: OpenSearchClient, names: Names) -> None:
        """Take the client and the index's name."""
        self._client = client
        self._index = names.meta

    def index_versions(self) -> IndexVersions | None:
        """The store's index versions, by one request; None where there is no store yet."""
        try:
            found = self._client.get(self._index, [_FACTS, _GENERATIONS])
        except ConfigurationError as error:
            if error.condition != "STORE_EMPTY":
                raise
            return None
        held = {name: json.loads(document["_source"]["value"]) for name, document in found.items()}
        if _GENERATIONS in held:
            return from_json(held[_GENERATIONS])
        return of_facts(held[_FACTS]) if _FACTS in held else None

    def created(self, fingerprint: str, dimensions: int) -> IndexVersions:
        """Say which model fills the store, unless it says so already."""
        mine = {"fingerprint": fingerprint, "dimensions": str(dimensions), "layout": LAYOUT}
        self.remember(_FACTS, lambda held: held or mine)
        return self._there()

    def change_index_versions(self, told: Callable[[IndexVersions], IndexVersions]) -> IndexVersions:
        """Replace them by what they become."""
        self._there()
        facts = self._get(_FACTS) or {}
        wanted = self.remember(_GENERATIONS, lambda held: to_json(told(from_json(held) if held else of_facts(facts))))
        return from_json(wanted)

    def owner(self) -> Owner | None:
        """Whose the store is; None where there is none, or nobody claimed it."""
        if self.index_versions() is None:
            return None
        held = self._get(_OWNER)
        return Owner(**held) if held else None

    def claim(self, mine: Owner, instead_of: Owner | None) -> Owner:
        """Make a store that is nobody's, or still another's, a pipeline's; whose it is then."""
        before = asdict(instead_of) if instead_of else {}
        return Owner(**self.remember(_OWNER, lambda held: asdict(mine) if held in ({}, before) else held))

    def truncations(self) -> dict[str, str]:
        """The newest TRUNCATE of each table, by sequence."""
        return self._get("truncations") or {}

    def progress(self) -> int | None:
        """Every commit up to this time (microseconds) is searchable."""
        held = self._get("progress")
        return held["as_of_us"] if held else None

    def remember(self, name: str, told: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        """Replace what is kept under a name by what it becomes; two writers at once do not lose either's."""
        while True:
            found = self._client.get(self._index, [name]).get(name)
            held = json.loads(found["_source"]["value"]) if found else {}
            wanted = told(held)
            if found and wanted == held:
                return held
            condition = {"if_seq_no": found["_seq_no"], "if_primary_term": found["_primary_term"]} if found else {}
            target = {"_index": self._index, "_id": name, **condition}
            body = {"value": json.dumps(wanted)}
            (answer,) = self._client.bulk([Action("index" if found else "create", target, body)])
            if answer["status"] != 409:
                return wanted

    def _there(self) -> IndexVersions:
        found = self.index_versions()
        if found is None:
            raise self._client.refusal(404, "index_not_found_exception")
        return found

    def _get(self, name: str) -> dict[str, Any] | None:
        found = self._client.get(self._index, [name])
        held: dict[str, Any] | None = json.loads(found[name]["_source"]["value"]) if found else None
        return held


def check_mapping(config: OpenSearchConfig, index: str, mapping: Mapping[str, Any], dimensions: int) -> None:
    """Raise ConfigurationError for an index that no pipeline made, or that was made for another model."""
    chunks = mapping.get("properties", {}).get("chunks", {}).get("properties", {})
    if mapping.get("dynamic") != "strict" or "embedding" not in chunks:
        raise ConfigurationError(
            f"sink {config.name}: there is an index {index} that is no store of a pipeline",
            condition="FOREIGN_INDEX",
            hint="name another index; this one was made by somebody else",
        )
    config.place.check_dimensions(chunks["embedding"].get("dimension"), dimensions)


def check_plugin(config: OpenSearchConfig, client: OpenSearchClient) -> None:
    """Raise ConfigurationError where the server lacks k-NN; a right to ask is not insisted on, as nothing else needs it."""
    try:
        client.call("GET", "/_plugins/_knn/stats")
    except ConfigurationError as error:
        if error.condition != "MISSING_RIGHTS":
            raise ConfigurationError(
                f"sink {config.name}: the server has no k-NN plugin",
                condition="NO_KNN",
                hint="install opensearch-knn on it",
            ) from None

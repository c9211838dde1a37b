"""OpenSearch (a domain, a cluster of one's own, or a Serverless collection) as a vector store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from schemas.documents import DocumentWrite, StoredDocument
from schemas.errors import ConfigurationError
from sinks.opensearch_client import Action, OpenSearchClient
from sinks.opensearch_rows import READ, change, decoded, encoded, replaced, stored
from sinks.opensearch_schema import GUARD, LAYOUT, Names, covered, mappings, template, visible
from sinks.protocol import StoreSummary

if TYPE_CHECKING:
    import numpy as np

    from sinks.opensearch_config import OpenSearchConfig

UNUSED_MS = 3_600_000
"""How long a vector is kept that no chunk names."""


class OpenSearchSink:
    """A `Sink` over one client a process.

    A document and its chunks are one document of OpenSearch, guarded there by revision and sequence; a deleted one stays
    as a tombstone, since OpenSearch itself forgets a delete after a minute. Vectors are kept by content, before.
    Replaying writes nothing, and a write planned on an older revision is refused.
    """

    def __init__(self, config: OpenSearchConfig, fingerprint: str, dimensions: int) -> None:
        """Keep the configuration and the model's identity; nothing is opened yet."""
        self._config = config
        self._fingerprint = fingerprint
        self._dimensions = dimensions
        self._names = Names(config.index)
        self._client = OpenSearchClient(config)
        self._scripts: bool | None = None
        self._at_hand: dict[str, np.ndarray] = {}

    @property
    def name(self) -> str:
        """The store's name."""
        return self._config.name

    def check(self) -> None:
        """Connect and compare what stands there with what this pipeline would write."""
        facts = self._facts()
        if facts is not None:
            self._check_identity(facts)
        names = f"{self._names.alias},{self._names.documents}"
        found = self._client.call("GET", f"/{names}/_mapping", ignore_unavailable="true")
        if facts is not None and self._names.documents not in found:
            raise self._client.refusal(404, "index_not_found_exception")
        for index, told in found.items():
            self._check_mapping(index, told["mappings"])
        if not found and not self._config.serverless:
            self._check_plugin()

    def prepare(self) -> None:
        """Create the store's indexes; what another driver creates meanwhile is the same."""
        facts = self._facts()
        if facts is None:
            self.check()
            self._client.call(
                "PUT", f"/_index_template/{self._names.documents}", template(self._config, self._dimensions)
            )
            for index, body in mappings(self._config, self._dimensions).items():
                self._client.call("PUT", f"/{index}", body, accept=("resource_already_exists_exception",))
            mine = {"fingerprint": self._fingerprint, "dimensions": str(self._dimensions), "layout": LAYOUT}
            facts = self._remember("facts", lambda held: held or mine)
        self._check_identity(facts)

    def truncations(self) -> dict[str, str]:
        """Read the newest TRUNCATE of each table."""
        return truncations(self._client, self._names)

    def read(self, document_ids: Sequence[str]) -> dict[str, StoredDocument]:
        """Read documents as they are, searchable or not."""
        found = self._client.get(self._names.documents, list(document_ids), READ)
        return {name: stored(name, hit["_source"]) for name, hit in found.items()}

    def missing_vectors(self, content_hashes: Sequence[str]) -> set[str]:
        """Compare with the vectors that are kept."""
        return set(content_hashes) - set(self._client.get(self._names.vectors, list(content_hashes), ["content_hash"]))

    def keep_vectors(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep vectors that are not kept yet; the time beside them is this writer's clock."""
        now = time.time_ns() // 1_000_000
        self._client.bulk([
            Action("create", {"_index": self._names.vectors, "_id": name},
                   {"content_hash": name, "embedding": encoded(vector), "created_at": now})
            for name, vector in sorted(vectors.items())
        ])  # fmt: skip
        self._at_hand |= vectors

    def write(self, writes: Sequence[DocumentWrite]) -> set[str]:
        """Write each document under its guard, and return once what was accepted can be searched."""
        vectors = self._vectors({chunk.content_hash for write in writes for chunk in write.added})
        ready = [write for write in writes if all(chunk.content_hash in vectors for chunk in write.added)]
        told = {write.document_id: change(write, vectors) for write in ready}
        actions = self._scripted(told) if self._by_script() else self._conditional(told)
        answers = self._client.bulk(actions, refresh=not self._config.serverless)
        self._at_hand.clear()
        written = {answer["_id"] for answer in answers if answer.get("result") in {"created", "updated"}}
        return {write.document_id for write in writes} - written

    def truncate(self, table: str, sequence: str) -> None:
        """Raise the table's mark: readers obey it at once, and `sweep` removes what it covers."""
        self._remember("truncations", lambda marks: marks | {table: max(marks.get(table, ""), sequence)})

    def note_progress(self, indexed_as_of_us: int) -> None:
        """Raise the progress."""
        self._remember("progress", lambda held: {"as_of_us": max(held.get("as_of_us", 0), indexed_as_of_us)})

    def vectors_since(self, moment_us: int) -> Iterator[tuple[str, np.ndarray]]:
        """Page through vectors by the time they were kept, which is their writers' clock."""
        self._refresh(self._names.vectors)
        query = {"range": {"created_at": {"gte": moment_us // 1000}}}
        for page in self._client.pages(self._names.vectors, query, ("created_at", "content_hash"), ("embedding",)):
            for hit in page:
                yield hit["_id"], decoded(hit["_source"]["embedding"])

    def sweep(self) -> None:
        """Remove truncated rows and vectors that no chunk has named for an hour."""
        documents, vectors = self._names.documents, self._names.vectors
        if marks := self.truncations():
            gone = {"bool": {"should": covered(marks)}}
            for page in self._client.pages(documents, gone, ("document_id",), ()):
                self._remove(page)
        old = {"range": {"created_at": {"lt": time.time_ns() // 1_000_000 - UNUSED_MS}}}
        for page in self._client.pages(vectors, old, ("content_hash",), ()):
            used = self._used({hit["_id"] for hit in page})
            self._remove([hit for hit in page if hit["_id"] not in used])

    def summary(self) -> StoreSummary:
        """Count documents, chunks and pending columns."""
        aggregations = {
            "shown": {"filter": {"range": {"chunk_count": {"gt": 0}}},
                      "aggs": {"chunks": {"sum": {"field": "chunk_count"}}}},
            "pending": {"filter": {"exists": {"field": "pending"}},
                        "aggs": {"tables": {"terms": {"field": "table_name", "size": 10_000}}}},
        }  # fmt: skip
        body = {"size": 0, "query": visible(self.truncations()), "aggs": aggregations}
        told = self._client.call("POST", f"/{self._names.documents}/_search", body)["aggregations"]
        pending = {bucket["key"]: bucket["doc_count"] for bucket in told["pending"]["tables"]["buckets"]}
        shown = told["shown"]
        return StoreSummary(shown["doc_count"], int(shown["chunks"]["value"]), pending, self._progress())

    def close(self) -> None:
        """Close connections; the next call opens others."""
        self._client.close()

    def _scripted(self, told: Mapping[str, Mapping[str, Any]]) -> list[Action]:
        """Writes that the store itself guards."""
        return [
            Action("update", {"_index": self._names.documents, "_id": name},
                   {"scripted_upsert": True, "upsert": {}, "script": {"source": GUARD, "params": params}})
            for name, params in told.items()
        ]  # fmt: skip

    def _conditional(self, told: Mapping[str, Mapping[str, Any]]) -> list[Action]:
        """Writes that are refused unless the store still holds what was read here."""
        index = self._names.documents
        held = self._client.get(index, list(told))
        now = time.time_ns() // 1_000_000
        actions = []
        for name, params in told.items():
            found = held.get(name)
            target: dict[str, Any] = {"_index": index, "_id": name}
            if found:
                target |= {"if_seq_no": found["_seq_no"], "if_primary_term": found["_primary_term"]}
            document = replaced(found["_source"] if found else None, params, now)
            if document is not None:
                actions.append(Action("index" if found else "create", target, document))
        return actions

    def _by_script(self) -> bool:
        """Whether writes are guarded by a script; asked of the store once, where the configuration leaves it open."""
        if self._scripts is None:
            if self._config.guard == "auto":
                self._scripts = not self._config.serverless and self._runs_scripts()
            else:
                self._scripts = self._config.guard == "script"
        return self._scripts

    def _runs_scripts(self) -> bool:
        try:
            self._client.call("POST", "/_scripts/painless/_execute", {"script": {"source": "1"}})
        except ConfigurationError:
            return False
        return True

    def _vectors(self, content_hashes: Collection[str]) -> dict[str, np.ndarray]:
        """Vectors of chunks to be added: those kept just now are still at hand."""
        found = {name: self._at_hand[name] for name in content_hashes if name in self._at_hand}
        if rest := [name for name in content_hashes if name not in found]:
            kept = self._client.get(self._names.vectors, rest, ["embedding"])
            found |= {name: decoded(hit["_source"]["embedding"]) for name, hit in kept.items()}
        return found

    def _remember(self, name: str, told: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        """Replace what is kept under a name in the meta index by what it becomes; two writers at once do not lose either."""
        index = self._names.meta
        while True:
            found = self._client.get(index, [name]).get(name)
            held = json.loads(found["_source"]["value"]) if found else {}
            wanted = told(held)
            if found and wanted == held:
                return held
            condition = {"if_seq_no": found["_seq_no"], "if_primary_term": found["_primary_term"]} if found else {}
            target = {"_index": index, "_id": name, **condition}
            (answer,) = self._client.bulk(
                [Action("index" if found else "create", target, {"value": json.dumps(wanted)})]
            )
            if answer["status"] != 409:
                return wanted

    def _facts(self) -> dict[str, Any] | None:
        """What the store says of itself; None where there is none yet."""
        try:
            found = self._client.get(self._names.meta, ["facts"])
        except ConfigurationError as error:
            if error.condition != "STORE_EMPTY":
                raise
            return None
        return json.loads(found["facts"]["_source"]["value"]) if found else None

    def _progress(self) -> int | None:
        found = self._client.get(self._names.meta, ["progress"])
        return json.loads(found["progress"]["_source"]["value"])["as_of_us"] if found else None

    def _used(self, content_hashes: Collection[str]) -> set[str]:
        """Those hashes that a chunk names."""
        names = sorted(content_hashes)
        terms = {"terms": {"field": "chunks.content_hash", "size": len(names), "include": names}}
        named = {"nested": {"path": "chunks", "query": {"terms": {"chunks.content_hash": names}}}}
        body = {
            "size": 0,
            "query": named,
            "aggs": {"chunks": {"nested": {"path": "chunks"}, "aggs": {"hashes": terms}}},
        }
        told = self._client.call("POST", f"/{self._names.documents}/_search", body)
        return {bucket["key"] for bucket in told["aggregations"]["chunks"]["hashes"]["buckets"]}

    def _remove(self, hits: Sequence[Mapping[str, Any]]) -> None:
        """Delete what was found, unless it has been written since."""
        actions = [
            Action("delete", {"_index": hit["_index"], "_id": hit["_id"], "if_seq_no": hit["_seq_no"],
                              "if_primary_term": hit["_primary_term"]})
            for hit in hits
        ]  # fmt: skip
        self._client.bulk(actions, refresh=not self._config.serverless)

    def _refresh(self, index: str) -> None:
        if not self._config.serverless:
            self._client.call("POST", f"/{index}/_refresh")

    def _check_identity(self, facts: Mapping[str, str]) -> None:
        self._check_dimensions(facts["dimensions"])
        if facts["fingerprint"] != self._fingerprint:
            raise ConfigurationError(
                f"sink {self.name}: the store {self._config.index} was filled by another model "
                f"({facts['fingerprint']}) than the pipeline's ({self._fingerprint})",
                condition="OTHER_MODEL",
                hint="configure the model the store was filled with, or name another index",
            )

    def _check_mapping(self, index: str, mapping: Mapping[str, Any]) -> None:
        chunks = mapping.get("properties", {}).get("chunks", {}).get("properties", {})
        if mapping.get("dynamic") != "strict" or "embedding" not in chunks:
            raise ConfigurationError(
                f"sink {self.name}: there is an index {index} that is no store of a pipeline", condition="FOREIGN_INDEX",
                hint="name another index; this one was made by somebody else",
            )  # fmt: skip
        self._check_dimensions(chunks["embedding"].get("dimension"))

    def _check_dimensions(self, held: object) -> None:
        if str(held) != str(self._dimensions):
            raise ConfigurationError(
                f"sink {self.name}: the store {self._config.index} holds vectors of {held} "
                f"dimensions, the embedding model gives {self._dimensions}",
                condition="WRONG_DIMENSIONS",
                hint="set embedding.dimensions to the store's, or name another index",
            )

    def _check_plugin(self) -> None:
        try:
            self._client.call("GET", "/_plugins/_knn/stats")
        except ConfigurationError as error:
            if error.condition == "MISSING_RIGHTS":
                return  # a right that nothing else needs
            raise ConfigurationError(
                f"sink {self.name}: the server has no k-NN plugin",
                condition="NO_KNN",
                hint="install opensearch-knn on it",
            ) from None


def truncations(client: OpenSearchClient, names: Names) -> dict[str, str]:
    """The newest TRUNCATE of each table, by sequence."""
    found = client.get(names.meta, ["truncations"])
    return json.loads(found["truncations"]["_source"]["value"]) if found else {}

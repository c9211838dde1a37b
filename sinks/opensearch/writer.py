"""OpenSearch (a domain, a cluster of one's own, or a Serverless collection) as a vector store."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from schemas.documents import ActualDocument, BucketChecksum, DocumentWrite, StoredDocument
from schemas.errors import ConfigurationError
from sinks.bulk_loads import Build
from sinks.digests import checksums
from sinks.one_version import UNUSED_MS, OneIndexVersion, now_ms
from sinks.opensearch.audit import actual_documents
from sinks.opensearch.client import Action, OpenSearchClient, unchanged
from sinks.opensearch.meta import Meta, check_mapping, check_plugin
from sinks.opensearch.rows import READ, change, decoded, encoded, replaced, stored
from sinks.opensearch.schema import (
    GUARD,
    LOADING,
    Names,
    covered,
    in_languages,
    mappings,
    meta_mapping,
    shown,
    template,
    visible,
)
from sinks.protocol import StoreSummary

if TYPE_CHECKING:
    import numpy as np

    from schemas.ownership import Owner
    from sinks.opensearch.config import OpenSearchConfig
    from sinks.versions import IndexVersions
    from transforms.documents.languages import TablesOf

MOST_CACHED = 4096
"""Vectors stored last that a write need not read back."""

SERVERLESS_REFRESH_SECONDS = 10.0
"""The delay until a write to OpenSearch Serverless is searchable; it has no refresh (AWS, NextGen vector collections)."""


class OpenSearchSink(OneIndexVersion["OpenSearchConfig"]):
    """A `Sink` over one client a process.

    Replaying a write changes nothing, and a write planned on an older revision is refused: a document and its chunks are one
    document of OpenSearch, guarded by revision and sequence. A deleted one stays as a tombstone, since OpenSearch forgets
    a delete after a minute (`index.gc_deletes`). Vectors are stored first, by content hash.
    """

    def __init__(self, config: OpenSearchConfig, fingerprint: str, dimensions: int) -> None:
        """Connects on first use."""
        super().__init__(config, fingerprint, dimensions)
        self._shared = Names(config.index)
        self._client = OpenSearchClient(config)
        self._meta = Meta(self._client, self._shared)
        self._scripts: bool | None = None
        self._cached: dict[str, np.ndarray] = {}
        self._unsearchable_progress: list[tuple[float, int]] = []
        self._is_bulk_load = False

    def _check(self) -> None:
        index_versions = self.index_versions()
        if index_versions is None:
            self._check_vacant()
        elif (own := self._own(index_versions)).state != "creating":
            index = Names(self._config.index, own.number).documents
            mapping = self._client.call("GET", f"/{index}/_mapping")[index]["mappings"]
            check_mapping(self._config, index, mapping, self._dimensions)

    def _create_missing(self) -> None:
        """Create the indexes of the store, or of this index version; a concurrent driver creates the same ones."""
        index_versions = self.index_versions()
        if index_versions is None:
            self._check_vacant()
            self._put_index(self._shared.meta, meta_mapping(self._config))
            self._create(self._shared)
            self._client.call("POST", "/_aliases", shown(self._shared, self._shared))
            index_versions = self._meta.created(self._fingerprint, self._dimensions)
        own = self._own(index_versions)
        if own.state == "creating":
            self._create(Names(self._config.index, own.number))

    def owner(self) -> Owner | None:
        """Read the owner from the meta."""
        return self._meta.owner()

    def claim(self, owner: Owner, instead_of: Owner | None = None) -> Owner:
        """Compare-and-set the owner in the meta by sequence number, on Serverless too."""
        return self._meta.claim(owner, instead_of)

    def index_versions(self) -> IndexVersions | None:
        """Read the index versions from the meta."""
        return self._meta.index_versions()

    def change_index_versions(self, change: Callable[[IndexVersions], IndexVersions]) -> IndexVersions:
        """Change the index versions in the meta, then move the alias, which ragstream's own readers do not use."""
        after = self._meta.change_index_versions(change)
        self._client.call("POST", "/_aliases", shown(self._shared, Names(self._config.index, after.active_number)))
        return after

    def drop(self, number: int) -> None:
        """Delete the indexes of an index version, and the template of one. Idempotent."""
        names = Names(self._config.index, number)
        for index in (names.documents, names.vectors):
            self._client.call("DELETE", f"/{index}", accept=("index_not_found_exception",))
        self._client.call("DELETE", f"/_index_template/{names.documents}", accept=("index_template_missing_exception",))

    def truncations(self) -> dict[str, str]:
        """Read the newest TRUNCATE of each table."""
        return self._meta.truncations()

    def read(self, document_ids: Sequence[str]) -> dict[str, StoredDocument]:
        """Read documents as written, whether searchable yet or not."""
        documents = self._client.get(self._names.documents, list(document_ids), READ)
        return {name: stored(name, document["_source"]) for name, document in documents.items()}

    def missing_vectors(self, content_hashes: Sequence[str]) -> set[str]:
        """Compare with the stored hashes."""
        return set(content_hashes) - set(self._client.get(self._names.vectors, list(content_hashes), ["content_hash"]))

    def vectors(self, content_hashes: Sequence[str]) -> dict[str, np.ndarray]:
        """Read vectors by their hashes."""
        documents = self._client.get(self._names.vectors, list(content_hashes), ["embedding"])
        return {name: decoded(document["_source"]["embedding"]) for name, document in documents.items()}

    def keep_vectors(self, vectors: Mapping[str, np.ndarray], *, replace: bool = False) -> None:
        """Store vectors; the time stored with them is this writer's clock."""
        now = now_ms()
        self._client.bulk([
            Action("index" if replace else "create", {"_index": self._names.vectors, "_id": name},
                   {"content_hash": name, "embedding": encoded(vector), "created_at": now})
            for name, vector in sorted(vectors.items())
        ])  # fmt: skip
        if len(self._cached) > MOST_CACHED:
            self._cached.clear()
        self._cached |= vectors

    def write(self, writes: Sequence[DocumentWrite]) -> set[str]:
        """Write each document under its guard; returns once the accepted ones are searchable, unless in `bulk_load`."""
        vectors = self._vectors({chunk.content_hash for write in writes for chunk in write.added})
        ready = [write for write in writes if all(chunk.content_hash in vectors for chunk in write.added)]
        changes = {write.document_id: change(write, vectors, self._language_of(write)) for write in ready}
        with self._learning(ready) as languages:
            self._learn(languages)
            actions = self._scripted(changes) if self._by_script() else self._conditional(changes)
            refresh = not self._config.serverless and not self._is_bulk_load
            results = self._client.bulk(actions, refresh=refresh, of_documents=True)
        self._cached.clear()
        written = {result["_id"] for result in results if result.get("result") in {"created", "updated"}}
        return {write.document_id for write in writes} - written

    @contextmanager
    def bulk_load(self) -> Iterator[None]:
        """Refresh once, at the end: after each write it takes a third of the time. After a kill OpenSearch does it (1 s)."""
        self._is_bulk_load = True
        try:
            yield
            self._refresh(self._names.documents)
        finally:
            self._is_bulk_load = False

    def truncate(self, table: str, sequence: str) -> None:
        """Raise the table's mark, which readers obey at once; `sweep` deletes the rows it covers."""
        self._meta.update("truncations", lambda marks: marks | {table: max(marks.get(table, ""), sequence)})

    def note_progress(self, indexed_as_of_us: int) -> None:
        """Raise the progress; on Serverless, after the delay until the writes of that time are searchable."""
        now = time.monotonic()
        searchable = now - (SERVERLESS_REFRESH_SECONDS if self._config.serverless else 0.0)
        self._unsearchable_progress.append((now, indexed_as_of_us))
        reached = [as_of_us for noted_at, as_of_us in self._unsearchable_progress if noted_at <= searchable]
        self._unsearchable_progress = [noted for noted in self._unsearchable_progress if noted[0] > searchable]
        if reached:
            now_us = time.time_ns() // 1000
            self._meta.update("progress", lambda stored: {"as_of_us": max(_not_after(now_us, stored), *reached)})

    def vectors_since(self, moment_us: int) -> Iterator[tuple[str, np.ndarray]]:
        """Page through vectors by the time they were stored (their writers' clocks)."""
        self._refresh(self._names.vectors)
        query = {"range": {"created_at": {"gte": moment_us // 1000}}}
        for page in self._client.pages(self._names.vectors, query, ("created_at", "content_hash"), ("embedding",)):
            for hit in page:
                yield hit["_id"], decoded(hit["_source"]["embedding"])

    def bucket_checksums(self, width: int, *, vectors: bool) -> dict[str, BucketChecksum]:
        """Read all documents, and sum in this process."""
        self._refresh(self._names.documents)
        return checksums(actual_documents(self._client, self._names, self.truncations(), vectors=vectors), width)

    def documents_in(self, bucket: str, width: int, *, vectors: bool) -> Iterator[ActualDocument]:
        """Read the documents whose ids begin with `bucket`."""
        documents = actual_documents(self._client, self._names, self.truncations(), bucket, vectors=vectors)
        return (document for document in documents if document.document_id[:width] == bucket)

    def documents_by_spec(self) -> dict[tuple[str, str], int]:
        """Count by aggregation; an index of an older release, whose `recipe` has no doc values, is read page by page."""
        query = visible(self.truncations())
        specs = {"specs": {"terms": {"field": "recipe", "size": 1_000}}}
        tables = {"tables": {"terms": {"field": "table_name", "size": 10_000}, "aggs": specs}}
        index, body = self._names.documents, {"size": 0, "query": query, "aggs": tables}
        response = self._client.call("POST", f"/{index}/_search", body, accept=("search_phase_execution_exception",))
        if response is None:
            pages = self._client.pages(index, query, ("document_id",), ("table_name", "recipe"))
            rows = (hit["_source"] for page in pages for hit in page)
            return Counter((row["table_name"], row["recipe"]) for row in rows)
        return {
            (table["key"], spec["key"]): spec["doc_count"]
            for table in response["aggregations"]["tables"]["buckets"]
            for spec in table["specs"]["buckets"]
        }

    def remove(self, revisions: Mapping[str, int]) -> None:
        """Delete documents under their revision."""
        documents = self._client.get(self._names.documents, list(revisions), ["revision"])
        self._remove([d for name, d in documents.items() if d["_source"].get("revision", 0) == revisions[name]])

    def sweep(self) -> None:
        """Remove truncated rows and vectors that no chunk has named for ten minutes."""
        documents, vectors = self._names.documents, self._names.vectors
        if marks := self.truncations():
            truncated = {"bool": {"should": covered(marks)}}
            for page in self._client.pages(documents, truncated, ("document_id",), ()):
                self._remove(page)
        old = {"range": {"created_at": {"lt": now_ms() - UNUSED_MS}}}
        for page in self._client.pages(vectors, old, ("content_hash",), ()):
            used = self._used({hit["_id"] for hit in page})
            self._remove([hit for hit in page if hit["_id"] not in used])

    def summary(self) -> StoreSummary:
        """Count documents, chunks and unresolved columns."""
        aggregations = {
            "shown": {"filter": {"range": {"chunk_count": {"gt": 0}}},
                      "aggs": {"chunks": {"sum": {"field": "chunk_count"}}}},
            "unresolved": {"filter": {"exists": {"field": "pending"}},
                           "aggs": {"tables": {"terms": {"field": "table_name", "size": 10_000}}}},
        }  # fmt: skip
        body = {"size": 0, "query": visible(self.truncations()), "aggs": aggregations}
        counts = self._client.call("POST", f"/{self._names.documents}/_search", body)["aggregations"]
        unresolved = {bucket["key"]: bucket["doc_count"] for bucket in counts["unresolved"]["tables"]["buckets"]}
        shown = counts["shown"]
        return StoreSummary(shown["doc_count"], int(shown["chunks"]["value"]), unresolved, self._meta.progress())

    def stored_vectors(self) -> int:
        """Count them."""
        self._refresh(self._names.vectors)
        counted: int = self._client.call("GET", f"/{self._names.vectors}/_count")["count"]
        return counted

    def _drop_index(self) -> None:
        self._put_settings(LOADING)

    def _build_index(self, on_progress: Callable[[Build], object]) -> bool:
        """Set everything back; what was merged less is merged from now on, and what was not refreshed is searchable."""
        self._put_settings(dict.fromkeys(LOADING))
        self._refresh(self._names.documents)
        vectors = self.stored_vectors()
        on_progress(Build(vectors, vectors))
        return True

    def close(self) -> None:
        """Close connections; the next call opens others."""
        super().close()
        self._client.close()

    @property
    def _names(self) -> Names:
        return Names(self._config.index, self._version_number())

    def _check_vacant(self) -> None:
        """Raise ConfigurationError for foreign indexes where the store is to be created, or a missing k-NN plugin."""
        names = f"{self._shared.alias},{self._shared.documents}"
        existing = self._client.call("GET", f"/{names}/_mapping", ignore_unavailable="true")
        for index, body in existing.items():
            check_mapping(self._config, index, body["mappings"], self._dimensions)
        if not existing and not self._config.serverless:
            check_plugin(self._config, self._client)

    def _create(self, names: Names) -> None:
        body = template(self._config, names, self._dimensions)
        self._client.call("PUT", f"/_index_template/{names.documents}", body)
        for index, body in mappings(self._config, names, self._dimensions).items():
            self._put_index(index, body)

    def _learn(self, languages: TablesOf) -> None:
        """Note languages in the meta, after their fields were added to the index; no document is written anew."""
        if languages:
            body = template(self._config, self._names, self._dimensions, {**self._meta.of_searches()[1], **languages})
            self._client.call("PUT", f"/_index_template/{self._names.documents}", body)
            fields = {"properties": {"chunks": {"type": "nested", "properties": in_languages(languages)}}}
            self._client.call("PUT", f"/{self._names.documents}/_mapping", fields)
            self._meta.learn(languages)

    def _put_settings(self, settings: Mapping[str, Any]) -> None:
        """Serverless has no such settings; a user who may not change them loads more slowly."""
        for index in () if self._config.serverless else (self._names.documents, self._names.vectors):
            try:
                self._client.call("PUT", f"/{index}/_settings", {"index": settings})
            except ConfigurationError as error:
                if error.condition != "MISSING_RIGHTS":
                    raise

    def _put_index(self, index: str, body: Mapping[str, Any]) -> None:
        self._client.call("PUT", f"/{index}", body, accept=("resource_already_exists_exception",))

    def _scripted(self, changes: Mapping[str, Mapping[str, Any]]) -> list[Action]:
        """Writes guarded by the script; a first write is a `create`, which an existing document refuses."""
        index, now = self._names.documents, now_ms()
        return [
            Action("update", {"_index": index, "_id": name},
                   {"scripted_upsert": True, "upsert": {}, "script": {"source": GUARD, "params": params}})
            if params["base"]
            else Action("create", {"_index": index, "_id": name}, replaced(None, params, now))
            for name, params in changes.items()
        ]  # fmt: skip

    def _conditional(self, changes: Mapping[str, Mapping[str, Any]]) -> list[Action]:
        """Writes guarded here, then by the sequence number of the document that was read."""
        index, now = self._names.documents, now_ms()
        documents = self._client.get(index, list(changes))
        actions = []
        for name, params in changes.items():
            document = documents.get(name)
            body = replaced(document["_source"] if document else None, params, now)
            if body is not None:
                target = {"_index": index, "_id": name, **(unchanged(document) if document else {})}
                actions.append(Action("index" if document else "create", target, body))
        return actions

    def _by_script(self) -> bool:
        """Whether writes are guarded by a script; with `guard: auto` the store is asked once."""
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
        """Vectors from the cache of the last stored ones, else from the store."""
        vectors = {name: self._cached[name] for name in content_hashes if name in self._cached}
        if rest := [name for name in content_hashes if name not in vectors]:
            vectors |= self.vectors(rest)
        return vectors

    def _used(self, content_hashes: Collection[str]) -> set[str]:
        """The hashes that a chunk names."""
        names = sorted(content_hashes)
        terms = {"terms": {"field": "chunks.content_hash", "size": len(names), "include": names}}
        query = {"nested": {"path": "chunks", "query": {"terms": {"chunks.content_hash": names}}}}
        aggregation = {"chunks": {"nested": {"path": "chunks"}, "aggs": {"hashes": terms}}}
        body = {"size": 0, "query": query, "aggs": aggregation}
        response = self._client.call("POST", f"/{self._names.documents}/_search", body)
        return {bucket["key"] for bucket in response["aggregations"]["chunks"]["hashes"]["buckets"]}

    def _remove(self, hits: Sequence[Mapping[str, Any]]) -> None:
        """Delete documents that were not written since they were read."""
        actions = [Action("delete", {"_index": hit["_index"], "_id": hit["_id"], **unchanged(hit)}) for hit in hits]
        self._client.bulk(actions, refresh=not self._config.serverless)

    def _refresh(self, index: str) -> None:
        if not self._config.serverless:
            self._client.call("POST", f"/{index}/_refresh")


def _not_after(now_us: int, progress: Mapping[str, int]) -> int:
    """The stored progress; one in the future counts as none."""
    as_of_us = progress.get("as_of_us", 0)
    return as_of_us if as_of_us <= now_us else 0

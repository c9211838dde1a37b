"""OpenSearch (a domain, a cluster of one's own, or a Serverless collection) as a vector store."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from schemas.documents import BucketChecksum, DocumentWrite, HeldDocument, StoredDocument
from schemas.errors import ConfigurationError
from sinks.digests import checksums
from sinks.one_version import OneIndexVersion
from sinks.opensearch.audit import held
from sinks.opensearch.client import Action, OpenSearchClient
from sinks.opensearch.meta import Meta, check_mapping, check_plugin
from sinks.opensearch.rows import READ, change, decoded, encoded, replaced, stored
from sinks.opensearch.schema import GUARD, Names, covered, mappings, meta_mapping, shown, template, visible
from sinks.protocol import StoreSummary

if TYPE_CHECKING:
    import numpy as np

    from schemas.ownership import Owner
    from sinks.opensearch.config import OpenSearchConfig
    from sinks.versions import IndexVersions

MOST_AT_HAND = 4096
"""Vectors kept just now that a write need not read back."""

UNUSED_MS = 600_000
"""How long a vector is kept that no chunk names."""

SERVERLESS_REFRESH_SECONDS = 10.0
"""After this time a write to OpenSearch Serverless can be searched; it cannot be asked to be sooner (AWS, NextGen vector
collections)."""


class OpenSearchSink(OneIndexVersion["OpenSearchConfig"]):
    """A `Sink` over one client a process.

    A document and its chunks are one document of OpenSearch, guarded there by revision and sequence; a deleted one stays
    as a tombstone, since OpenSearch itself forgets a delete after a minute. Vectors are kept by content, before.
    Replaying writes nothing, and a write planned on an older revision is refused.
    """

    def __init__(self, config: OpenSearchConfig, fingerprint: str, dimensions: int) -> None:
        """Keep the configuration and the model's identity; nothing is opened yet."""
        super().__init__(config, fingerprint, dimensions)
        self._shared = Names(config.index)
        self._client = OpenSearchClient(config)
        self._meta = Meta(self._client, self._shared)
        self._scripts: bool | None = None
        self._at_hand: dict[str, np.ndarray] = {}
        self._noted: list[tuple[float, int]] = []
        self._fills = False

    def _check(self) -> None:
        held = self.index_versions()
        if held is None:
            self._check_vacant()
            return
        mine = self._mine(held)
        if mine.state != "creating":
            index = Names(self._config.index, mine.number).documents
            found = self._client.call("GET", f"/{index}/_mapping")
            check_mapping(self._config, index, found[index]["mappings"], self._dimensions)

    def _create_missing(self) -> None:
        """Create the indexes of the store, or of this index version; what another driver creates meanwhile is the same."""
        held = self.index_versions()
        if held is None:
            self._check_vacant()
            self._client.call(
                "PUT",
                f"/{self._shared.meta}",
                meta_mapping(self._config),
                accept=("resource_already_exists_exception",),
            )
            self._create(self._shared)
            self._client.call("POST", "/_aliases", shown(self._shared, self._shared))
            held = self._meta.created(self._fingerprint, self._dimensions)
        found = self._mine(held)
        if found.state == "creating":
            self._create(Names(self._config.index, found.number))

    def owner(self) -> Owner | None:
        """Read it from the meta."""
        return self._meta.owner()

    def claim(self, owner: Owner, instead_of: Owner | None = None) -> Owner:
        """Write it into the meta under its sequence number, on Serverless too."""
        return self._meta.claim(owner, instead_of)

    def index_versions(self) -> IndexVersions | None:
        """Read them from the meta."""
        return self._meta.index_versions()

    def change_index_versions(self, told: Callable[[IndexVersions], IndexVersions]) -> IndexVersions:
        """Change them, then move the alias, which only readers of their own use."""
        after = self._meta.change_index_versions(told)
        self._client.call("POST", "/_aliases", shown(self._shared, Names(self._config.index, after.active_number)))
        return after

    def drop(self, number: int) -> None:
        """Delete its indexes, and the template of one."""
        names = Names(self._config.index, number)
        for index in (names.documents, names.vectors):
            self._client.call("DELETE", f"/{index}", accept=("index_not_found_exception",))
        self._client.call("DELETE", f"/_index_template/{names.documents}", accept=("index_template_missing_exception",))

    def truncations(self) -> dict[str, str]:
        """Read the newest TRUNCATE of each table."""
        return self._meta.truncations()

    def read(self, document_ids: Sequence[str]) -> dict[str, StoredDocument]:
        """Read documents as they are, searchable or not."""
        found = self._client.get(self._names.documents, list(document_ids), READ)
        return {name: stored(name, hit["_source"]) for name, hit in found.items()}

    def missing_vectors(self, content_hashes: Sequence[str]) -> set[str]:
        """Compare with the vectors that are kept."""
        return set(content_hashes) - set(self._client.get(self._names.vectors, list(content_hashes), ["content_hash"]))

    def vectors(self, content_hashes: Sequence[str]) -> dict[str, np.ndarray]:
        """Read vectors by their hashes."""
        kept = self._client.get(self._names.vectors, list(content_hashes), ["embedding"])
        return {name: decoded(hit["_source"]["embedding"]) for name, hit in kept.items()}

    def keep_vectors(self, vectors: Mapping[str, np.ndarray], *, replace: bool = False) -> None:
        """Keep vectors; the time beside them is this writer's clock."""
        now = time.time_ns() // 1_000_000
        self._client.bulk([
            Action("index" if replace else "create", {"_index": self._names.vectors, "_id": name},
                   {"content_hash": name, "embedding": encoded(vector), "created_at": now})
            for name, vector in sorted(vectors.items())
        ])  # fmt: skip
        if len(self._at_hand) > MOST_AT_HAND:
            self._at_hand.clear()
        self._at_hand |= vectors

    def write(self, writes: Sequence[DocumentWrite]) -> set[str]:
        """Write each document under its guard, and return once what was accepted can be searched, unless it is a filling."""
        vectors = self._vectors({chunk.content_hash for write in writes for chunk in write.added})
        ready = [write for write in writes if all(chunk.content_hash in vectors for chunk in write.added)]
        told = {write.document_id: change(write, vectors) for write in ready}
        actions = self._scripted(told) if self._by_script() else self._conditional(told)
        refresh = not self._config.serverless and not self._fills
        answers = self._client.bulk(actions, refresh=refresh, of_documents=True)
        self._at_hand.clear()
        written = {answer["_id"] for answer in answers if answer.get("result") in {"created", "updated"}}
        return {write.document_id for write in writes} - written

    @contextmanager
    def bulk_load(self) -> Iterator[None]:
        """Refresh once, at the end: after each write it takes a third of the time. A kill leaves that to OpenSearch (1 s)."""
        self._fills = True
        try:
            yield
            self._refresh(self._names.documents)
        finally:
            self._fills = False

    def truncate(self, table: str, sequence: str) -> None:
        """Raise the table's mark: readers obey it at once, and `sweep` removes what it covers."""
        self._meta.remember("truncations", lambda marks: marks | {table: max(marks.get(table, ""), sequence)})

    def note_progress(self, indexed_as_of_us: int) -> None:
        """Raise the progress; on Serverless, once what was written then can be searched."""
        now = time.monotonic()
        searchable = now - (SERVERLESS_REFRESH_SECONDS if self._config.serverless else 0.0)
        self._noted.append((now, indexed_as_of_us))
        reached = [as_of_us for moment, as_of_us in self._noted if moment <= searchable]
        self._noted = [noted for noted in self._noted if noted[0] > searchable]
        if reached:
            now_us = time.time_ns() // 1000
            self._meta.remember("progress", lambda held: {"as_of_us": max(_not_after(now_us, held), *reached)})

    def vectors_since(self, moment_us: int) -> Iterator[tuple[str, np.ndarray]]:
        """Page through vectors by the time they were kept, which is their writers' clock."""
        self._refresh(self._names.vectors)
        query = {"range": {"created_at": {"gte": moment_us // 1000}}}
        for page in self._client.pages(self._names.vectors, query, ("created_at", "content_hash"), ("embedding",)):
            for hit in page:
                yield hit["_id"], decoded(hit["_source"]["embedding"])

    def bucket_checksums(self, width: int, *, vectors: bool) -> dict[str, BucketChecksum]:
        """Read everything, and add up here."""
        self._refresh(self._names.documents)
        return checksums(held(self._client, self._names, self.truncations(), vectors=vectors), width)

    def documents_in(self, bucket: str, width: int, *, vectors: bool) -> Iterator[HeldDocument]:
        """Read the documents whose ids begin so."""
        found = held(self._client, self._names, self.truncations(), bucket, vectors=vectors)
        return (document for document in found if document.document_id[:width] == bucket)

    def documents_by_spec(self) -> dict[tuple[str, str], int]:
        """Let the store count them; one that was made while specs had no doc values is read through."""
        seen = visible(self.truncations())
        specs = {"recipes": {"terms": {"field": "recipe", "size": 1_000}}}
        tables = {"tables": {"terms": {"field": "table_name", "size": 10_000}, "aggs": specs}}
        index, body = self._names.documents, {"size": 0, "query": seen, "aggs": tables}
        told = self._client.call("POST", f"/{index}/_search", body, accept=("search_phase_execution_exception",))
        if told is None:
            pages = self._client.pages(index, seen, ("document_id",), ("table_name", "recipe"))
            heads = (hit["_source"] for page in pages for hit in page)
            return Counter((head["table_name"], head["recipe"]) for head in heads)
        return {
            (table["key"], recipe["key"]): recipe["doc_count"]
            for table in told["aggregations"]["tables"]["buckets"]
            for recipe in table["recipes"]["buckets"]
        }

    def remove(self, revisions: Mapping[str, int]) -> None:
        """Delete documents under their revision."""
        found = self._client.get(self._names.documents, list(revisions), ["revision"])
        self._remove([hit for name, hit in found.items() if hit["_source"].get("revision", 0) == revisions[name]])

    def sweep(self) -> None:
        """Remove truncated rows and vectors that no chunk has named for ten minutes."""
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
        return StoreSummary(shown["doc_count"], int(shown["chunks"]["value"]), pending, self._meta.progress())

    def close(self) -> None:
        """Close connections; the next call opens others."""
        super().close()
        self._client.close()

    @property
    def _names(self) -> Names:
        return Names(self._config.index, self._version_number())

    def _check_vacant(self) -> None:
        """Where a store is to be made, nothing may stand that no pipeline made, nor may k-NN be missing."""
        names = f"{self._shared.alias},{self._shared.documents}"
        found = self._client.call("GET", f"/{names}/_mapping", ignore_unavailable="true")
        for index, told in found.items():
            check_mapping(self._config, index, told["mappings"], self._dimensions)
        if not found and not self._config.serverless:
            check_plugin(self._config, self._client)

    def _create(self, names: Names) -> None:
        put = template(self._config, names, self._dimensions)
        self._client.call("PUT", f"/_index_template/{names.documents}", put)
        for index, body in mappings(self._config, names, self._dimensions).items():
            self._client.call("PUT", f"/{index}", body, accept=("resource_already_exists_exception",))

    def _scripted(self, told: Mapping[str, Mapping[str, Any]]) -> list[Action]:
        """Writes that the store itself guards; the first of a document needs no script, as one that is there refuses it."""
        index, now = self._names.documents, time.time_ns() // 1_000_000
        return [
            Action("update", {"_index": index, "_id": name},
                   {"scripted_upsert": True, "upsert": {}, "script": {"source": GUARD, "params": params}})
            if params["base"]
            else Action("create", {"_index": index, "_id": name}, replaced(None, params, now))
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
            found |= self.vectors(rest)
        return found

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


def _not_after(now_us: int, progress: Mapping[str, int]) -> int:
    """The progress that is kept; one that lies in the future is none."""
    kept = progress.get("as_of_us", 0)
    return kept if kept <= now_us else 0

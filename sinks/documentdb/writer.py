"""Amazon DocumentDB as a vector store."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import batched
from typing import TYPE_CHECKING, Any

from schemas.documents import ActualDocument, BucketChecksum, DocumentWrite, StoredDocument
from sinks.bulk_loads import Build
from sinks.digests import checksums
from sinks.documentdb.audit import actual_documents
from sinks.documentdb.client import MOST_NAMES, DocumentDBClient
from sinks.documentdb.meta import Meta, check_collections, check_index, check_indexable
from sinks.documentdb.rows import HASHES, READ, VECTOR, encoded, fields_of, stored, vector_of
from sinks.documentdb.schema import MOST_COMPARED, VECTOR_INDEX, Names, indexes, visible
from sinks.one_version import UNUSED_MS, OneIndexVersion, now_ms
from sinks.protocol import StoreSummary

if TYPE_CHECKING:
    import numpy as np
    from pymongo import InsertOne, UpdateOne

    from schemas.ownership import Owner
    from sinks.documentdb.config import DocumentDBConfig
    from sinks.versions import IndexVersions

MOST_CACHED = 100_000
"""Names of stored vectors, and of chunks that were read, that this writer need not look up."""

MOST_NAMING = 2_000
"""Documents read to tell whether vectors are still named; with more of them, all the vectors count as named."""

_UNINDEX = {"$rename": {"embedding": "aside"}, "$set": {"is_aside": True}}
_INDEX = {"$rename": {"aside": "embedding"}, "$unset": {"is_aside": ""}}


class DocumentDBSink(OneIndexVersion["DocumentDBConfig"]):
    """A `Sink` over one client a process.

    Replaying a write changes nothing, and a write planned on an older revision is refused: a document and its chunks are one
    document of DocumentDB, replaced by one update that is filtered by revision and sequence. No transaction is needed, and
    the driver retries no write. Vectors are stored first, by content hash, and are what a search finds. One that no document
    names any more leaves the index at once, and is swept after ten minutes.
    """

    def __init__(self, config: DocumentDBConfig, fingerprint: str, dimensions: int) -> None:
        """Connects on first use."""
        super().__init__(config, fingerprint, dimensions)
        self.most_compared = MOST_COMPARED
        self._client = DocumentDBClient(config)
        self._meta = Meta(self._client, config)
        self._is_store = False
        self._stored_at_ms: dict[str, int] = {}
        self._hash_of_chunk: dict[str, str] = {}

    def _check(self) -> None:
        check_indexable(self._config, self._dimensions)
        names, facts = Names(self._config.collection), self._meta.read()
        if facts is not None:
            own = self._own(facts.index_versions)
            if own.state == "creating":
                return
            names = Names(self._config.collection, own.number)
        check_collections(self._config, names, self._collections(names), is_store=facts is not None)
        if facts is not None and self._own(facts.index_versions).bulk_load is None:
            check_index(self._config, self._indexes(names), self._dimensions)

    def _create_missing(self) -> None:
        """Create the collections of the store, or of this index version; a concurrent driver creates the same ones."""
        check_indexable(self._config, self._dimensions)
        if self._meta.read() is None:
            self._check()
            self._create(Names(self._config.collection))
            self._meta.create(self._fingerprint, self._dimensions)
        own = self._own(self._meta.facts().index_versions)
        if own.state == "creating":
            self._create(Names(self._config.collection, own.number))
        self._is_store = True

    def owner(self) -> Owner | None:
        """Read the owner from the meta."""
        return self._meta.owner()

    def claim(self, owner: Owner, instead_of: Owner | None = None) -> Owner:
        """Compare-and-set the owner in the meta."""
        return self._meta.claim(owner, instead_of)

    def index_versions(self) -> IndexVersions | None:
        """Read the index versions from the meta."""
        facts = self._meta.read()
        return None if facts is None else facts.index_versions

    def change_index_versions(self, change: Callable[[IndexVersions], IndexVersions]) -> IndexVersions:
        """Compare-and-set the index versions in the meta."""
        return self._meta.change_index_versions(change)

    def drop(self, number: int) -> None:
        """Drop the collections of an index version. Idempotent."""
        names = Names(self._config.collection, number)
        for collection in sorted(self._collections(names) - {names.meta}):
            self._client.command({"drop": collection})

    def truncations(self) -> dict[str, str]:
        """Read the newest TRUNCATE of each table, as every plan does: so nothing is written into a store that was dropped."""
        facts = self._meta.facts()
        self._learned = frozenset((language, table) for language, tables in facts.tables_of.items() for table in tables)
        return dict(facts.truncations)

    def read(self, document_ids: Sequence[str]) -> dict[str, StoredDocument]:
        """Read documents, and remember their chunks' content hashes for `write`."""
        if not self._is_store:
            self._meta.facts()
            self._is_store = True
        fields = self._client.get(self._names.documents, document_ids, READ)
        documents = {name: stored(document) for name, document in fields.items()}
        if len(self._hash_of_chunk) > MOST_CACHED:
            self._hash_of_chunk.clear()
        self._hash_of_chunk |= {c.chunk_id: c.content_hash for d in documents.values() for c in d.chunks}
        return documents

    def missing_vectors(self, content_hashes: Sequence[str]) -> set[str]:
        """Compare with the stored hashes."""
        return set(content_hashes) - self._client.get(self._names.vectors, content_hashes, ["_id"]).keys()

    def vectors(self, content_hashes: Sequence[str]) -> dict[str, np.ndarray]:
        """Read vectors by their hashes, whether they are in the index or not."""
        documents = self._client.get(self._names.vectors, content_hashes, VECTOR)
        return {name: vector_of(document) for name, document in documents.items()}

    def keep_vectors(self, vectors: Mapping[str, np.ndarray], *, replace: bool = False) -> None:
        """Insert vectors; the time stored with them is this writer's clock."""
        now = now_ms()
        operations = [_keep(name, vector, now, replace=replace) for name, vector in sorted(vectors.items())]
        duplicates = self._client.bulk(self._names.vectors, operations).duplicates if operations else frozenset()
        if len(self._stored_at_ms) > MOST_CACHED:
            self._stored_at_ms.clear()
        self._stored_at_ms |= {name: now for place, name in enumerate(sorted(vectors)) if place not in duplicates}

    def write(self, writes: Sequence[DocumentWrite]) -> set[str]:
        """Write each document under its guard: an insert is refused if it exists, an update if another writer was first.

        DocumentDB returns how many documents the updates matched, not which: if some did not, the documents with this
        call's `written_by` are queried. One that was overwritten since then counts as refused, and is planned again.
        """
        usable = self._usable({chunk.content_hash for write in writes for chunk in write.added})
        ready = [write for write in writes if all(chunk.content_hash in usable for chunk in write.added)]
        refused = {write.document_id for write in writes} - {write.document_id for write in ready}
        if not ready:
            return refused
        write_id, now = uuid.uuid4().hex, now_ms()
        operations = [_guarded(write, fields_of(write, self._config.language, write_id, now)) for write in ready]
        with self._learning(ready) as languages:
            self._meta.learn(languages)
            result = self._client.bulk(self._names.documents, operations, of_documents=True)
        refused |= {ready[place].document_id for place in result.duplicates}
        updates = {write.document_id for write in ready if write.base_revision}
        if result.matched < len(updates):
            own = {"_id": {"$in": sorted(updates)}, "written_by": write_id}
            refused |= updates - {
                document["_id"] for document in self._client.find(self._names.documents, own, ["_id"])
            }
        written = [write for write in ready if write.document_id not in refused]
        self._index({chunk.content_hash for write in written for chunk in write.added})
        dropped = (self._hash_of_chunk.get(name) for write in written for name in write.dropped)
        self._unindex({content_hash for content_hash in dropped if content_hash})
        return refused

    def truncate(self, table: str, sequence: str) -> None:
        """Raise the table's mark, which readers obey at once; `sweep` deletes the rows it covers."""
        self._meta.raise_truncation(table, sequence)

    def note_progress(self, indexed_as_of_us: int) -> None:
        """Raise the progress in the meta."""
        self._meta.raise_progress(indexed_as_of_us)

    def vectors_since(self, moment_us: int) -> Iterator[tuple[str, np.ndarray]]:
        """Stream vectors by the time they were stored (their writers' clocks)."""
        query = {"kept_at": {"$gte": moment_us // 1000}}
        for document in self._client.find(self._names.vectors, query, VECTOR):
            yield document["_id"], vector_of(document)

    def bucket_checksums(self, width: int, *, vectors: bool) -> dict[str, BucketChecksum]:
        """Read all documents, and sum in this process."""
        return checksums(actual_documents(self._client, self._names, self.truncations(), vectors=vectors), width)

    def documents_in(self, bucket: str, width: int, *, vectors: bool) -> Iterator[ActualDocument]:
        """Read the documents whose names begin with `bucket`."""
        documents = actual_documents(self._client, self._names, self.truncations(), bucket, vectors=vectors)
        return (document for document in documents if document.document_id[:width] == bucket)

    def documents_by_spec(self) -> dict[tuple[str, str], int]:
        """Group in the store."""
        match = {"$match": visible(self.truncations(), {})}
        group = {"$group": {"_id": {"table": "$table", "recipe": "$recipe"}, "documents": {"$sum": 1}}}
        groups = self._client.aggregate(self._names.documents, match, group)
        return {(group["_id"]["table"], group["_id"]["recipe"]): group["documents"] for group in groups}

    def remove(self, revisions: Mapping[str, int]) -> None:
        """Delete documents under their revision; a row without one has revision 0."""
        for part in batched(sorted(revisions.items()), MOST_NAMES):
            unchanged = {"$or": [{"_id": name, "revision": {"$in": [n] if n else [0, None]}} for name, n in part]}
            self._unindex(self._delete(unchanged))

    def sweep(self) -> None:
        """Remove truncated rows and vectors that no chunk has named for ten minutes."""
        for table, sequence in self.truncations().items():
            covered = {"table": table, "sequence": {"$lte": sequence}}
            self._unindex(self._delete(covered))
        old = {"kept_at": {"$lt": now_ms() - UNUSED_MS}}
        vectors = self._client.find(self._names.vectors, old, ["_id"])
        for page in batched((document["_id"] for document in vectors), MOST_NAMES):
            used = _hashes_of(self._client.find(self._names.documents, {HASHES: {"$in": page}}, [HASHES]))
            self._index(used & set(page))  # a writer that was killed in `_unindex` may have left them out of the index
            if unused := sorted(set(page) - used):
                self._client.delete(self._names.vectors, {"_id": {"$in": unused}, **old})

    def summary(self) -> StoreSummary:
        """Count documents, chunks and unresolved columns."""
        facts, documents = self._meta.facts(), self._names.documents
        seen = visible(facts.truncations, {})
        counted = {"_id": None, "documents": {"$sum": 1}, "chunks": {"$sum": "$chunk_count"}}
        shown = {"$match": seen | {"chunk_count": {"$gt": 0}}}
        totals = next(self._client.aggregate(documents, shown, {"$group": counted}), {"documents": 0, "chunks": 0})
        match = {"$match": seen | {"pending.0": {"$exists": True}}}
        tables = self._client.aggregate(documents, match, {"$group": {"_id": "$table", "documents": {"$sum": 1}}})
        unresolved = {table["_id"]: table["documents"] for table in tables}
        return StoreSummary(totals["documents"], totals["chunks"], unresolved, facts.progress)

    def stored_vectors(self) -> int:
        """Read the collection's own count."""
        return self._client.size(self._names.vectors)

    def _drop_index(self) -> None:
        names = self._names
        if any(index["name"] == VECTOR_INDEX for index in self._indexes(names)):
            self._client.command({"dropIndexes": names.vectors, "index": VECTOR_INDEX})

    def _build_index(self, on_progress: Callable[[Build], object]) -> bool:
        """Create the index: DocumentDB builds it from what is there, and answers when it is whole."""
        names, vectors = self._names, self.stored_vectors()
        on_progress(Build(0, vectors))
        definitions = indexes(self._config, names, self._dimensions)[names.vectors]
        self._client.command({"createIndexes": names.vectors, "indexes": definitions})
        on_progress(Build(vectors, vectors))
        return True

    def close(self) -> None:
        """Close connections; the next call opens others."""
        super().close()
        self._client.close()

    def _delete(self, query: Mapping[str, Any]) -> set[str]:
        """Delete documents; the content hashes of their chunks."""
        hashes = _hashes_of(self._client.find(self._names.documents, query, [HASHES]))
        self._client.delete(self._names.documents, query)
        return hashes

    @property
    def _names(self) -> Names:
        return Names(self._config.collection, self._version_number())

    def _create(self, names: Names) -> None:
        for collection, definitions in indexes(self._config, names, self._dimensions).items():
            self._client.command({"createIndexes": collection, "indexes": definitions})

    def _indexes(self, names: Names) -> list[Mapping[str, Any]]:
        listed: list[Mapping[str, Any]] = self._client.command({"listIndexes": names.vectors})["cursor"]["firstBatch"]
        return listed

    def _collections(self, names: Names) -> set[str]:
        """The existing ones of a store's collections."""
        own = {names.documents, names.vectors, names.meta}
        command = {"listCollections": 1, "nameOnly": True, "filter": {"name": {"$in": sorted(own)}}}
        return own & {collection["name"] for collection in self._client.command(command)["cursor"]["firstBatch"]}

    def _usable(self, content_hashes: set[str]) -> set[str]:
        """The stored ones of these vectors, protected from a sweep until the chunks that name them are written.

        A sweep deletes vectors that are old and unnamed, by a filter on their age: so the age of old ones is reset first.
        """
        now = now_ms()
        recent = {name for name in content_hashes if self._stored_at_ms.get(name, 0) > now - UNUSED_MS // 2}
        stored = self._client.get(self._names.vectors, sorted(content_hashes - recent), ["kept_at", "is_aside"])
        self._index({name for name, vector in stored.items() if "is_aside" in vector})
        old = sorted(name for name, vector in stored.items() if vector["kept_at"] < now - UNUSED_MS // 2)
        if old:
            self._client.update(self._names.vectors, {"_id": {"$in": old}}, {"$max": {"kept_at": now}})
            unswept = self._client.get(self._names.vectors, old, ["_id"])
            stored = {name: vector for name, vector in stored.items() if name not in old or name in unswept}
        return recent | stored.keys()

    def _index(self, content_hashes: set[str]) -> None:
        """Put vectors back into the index; they are looked up first, since few of them are out of it."""
        if content_hashes:
            stored = self._client.get(self._names.vectors, sorted(content_hashes), ["is_aside"])
            if outside := sorted(name for name, vector in stored.items() if "is_aside" in vector):
                self._client.update(self._names.vectors, {"_id": {"$in": outside}, "is_aside": True}, _INDEX)

    def _unindex(self, content_hashes: set[str]) -> None:
        """Take vectors that no document names out of the index, so that no search finds them.

        A writer that names one meanwhile puts it back after this update, or is seen by the second `_referenced`: either way it
        is in the index.
        """
        for page in batched(sorted(content_hashes), MOST_NAMES):
            unnamed = set(page) - self._referenced(page)
            if unnamed:
                indexed = {"_id": {"$in": sorted(unnamed)}, "is_aside": {"$exists": False}}
                self._client.update(self._names.vectors, indexed, _UNINDEX)
                self._index(self._referenced(sorted(unnamed)))
            for name in unnamed:
                self._stored_at_ms.pop(name, None)

    def _referenced(self, content_hashes: Sequence[str]) -> set[str]:
        """The content hashes that a document names; all of them if `MOST_NAMING` documents do."""
        query = {HASHES: {"$in": list(content_hashes)}}
        documents = list(self._client.find(self._names.documents, query, [HASHES], MOST_NAMING))
        every = set(content_hashes)
        return every if len(documents) == MOST_NAMING else every & _hashes_of(documents)


def _keep(name: str, vector: np.ndarray, kept_at: int, *, replace: bool) -> InsertOne[dict[str, Any]] | UpdateOne:
    """An insert of a vector, or with `replace` an upsert."""
    from pymongo import InsertOne, UpdateOne

    fields = {"embedding": encoded(vector), "kept_at": kept_at}
    if replace:
        return UpdateOne({"_id": name}, {"$set": fields, "$unset": {"aside": "", "is_aside": ""}}, upsert=True)
    return InsertOne({"_id": name, **fields})


def _guarded(write: DocumentWrite, fields: dict[str, Any]) -> InsertOne[dict[str, Any]] | UpdateOne:
    """A write that is refused unless the stored revision is the one it was planned on."""
    from pymongo import InsertOne, UpdateOne

    if not write.base_revision:
        return InsertOne({"_id": write.document_id, **fields})
    planned_on = {"_id": write.document_id, "revision": write.base_revision, "sequence": {"$lte": fields["sequence"]}}
    return UpdateOne(planned_on, {"$set": fields})


def _hashes_of(documents: Iterable[Mapping[str, Any]]) -> set[str]:
    return {chunk["content_hash"] for document in documents for chunk in document.get("chunks", ())}

"""Amazon DocumentDB as a vector store."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import batched
from typing import TYPE_CHECKING, Any

from schemas.documents import BucketChecksum, DocumentWrite, HeldDocument, StoredDocument
from sinks.digests import checksums
from sinks.documentdb.audit import held
from sinks.documentdb.client import MOST_NAMES, DocumentDBClient
from sinks.documentdb.meta import Meta, check_collections, check_index, check_indexable
from sinks.documentdb.rows import READ, VECTOR, encoded, head, stored, vector_in
from sinks.documentdb.schema import Names, indexes, visible
from sinks.one_version import OneIndexVersion
from sinks.protocol import StoreSummary

if TYPE_CHECKING:
    import numpy as np
    from pymongo import InsertOne, UpdateOne

    from schemas.ownership import Owner
    from sinks.documentdb.config import DocumentDBConfig
    from sinks.versions import IndexVersions

UNUSED_MS = 600_000
"""How long a vector is kept that no chunk names."""

MOST_AT_HAND = 100_000
"""Names of vectors kept, and of chunks read, by this writer that it need not look up."""

MOST_NAMING = 2_000
"""Documents looked at to tell whether vectors are still named; where there are more, they are taken to be."""

_SET_ASIDE = {"$rename": {"embedding": "aside"}, "$set": {"is_aside": True}}
_TAKE_UP = {"$rename": {"aside": "embedding"}, "$unset": {"is_aside": ""}}


class DocumentDBSink(OneIndexVersion["DocumentDBConfig"]):
    """A `Sink` over one client a process.

    A document and its chunks are one document of DocumentDB, so one update, filtered by revision and sequence, replaces
    both; its vectors are kept by content, before, and are what a search finds. A vector that no document names any more is
    set aside at once, out of the index, and kept for an hour. No transaction is needed, and no write is retried by the
    driver. Replaying writes nothing, and a write planned on an older revision is refused.
    """

    def __init__(self, config: DocumentDBConfig, fingerprint: str, dimensions: int) -> None:
        """Keep the configuration and the model's identity; nothing is opened yet."""
        super().__init__(config, fingerprint, dimensions)
        self._client = DocumentDBClient(config)
        self._meta = Meta(self._client, config)
        self._is_store = False
        self._at_hand: dict[str, int] = {}
        self._read: dict[str, str] = {}

    def _check(self) -> None:
        check_indexable(self._config, self._dimensions)
        names, told = Names(self._config.collection), self._meta.found()
        if told is not None:
            mine = self._mine(told.index_versions)
            if mine.state == "creating":
                return
            names = Names(self._config.collection, mine.number)
        check_collections(self._config, names, self._collections(names), is_store=told is not None)
        if told is not None:
            found = self._client.command({"listIndexes": names.vectors})["cursor"]["firstBatch"]
            check_index(self._config, found, self._dimensions)

    def _create_missing(self) -> None:
        """Create the collections of the store, or of this index version; what another driver creates meanwhile is the same."""
        check_indexable(self._config, self._dimensions)
        if self._meta.found() is None:
            self._check()
            self._create(Names(self._config.collection))
            self._meta.create(self._fingerprint, self._dimensions)
        held = self._meta.told().index_versions
        mine = self._mine(held)
        if mine.state == "creating":
            self._create(Names(self._config.collection, mine.number))
        self._is_store = True

    def owner(self) -> Owner | None:
        """Read it from the meta."""
        return self._meta.owner()

    def claim(self, owner: Owner, instead_of: Owner | None = None) -> Owner:
        """Write it into the meta, where it is made once and changed only as it was read."""
        return self._meta.claim(owner, instead_of)

    def index_versions(self) -> IndexVersions | None:
        """Read them from the meta."""
        told = self._meta.found()
        return None if told is None else told.index_versions

    def change_index_versions(self, told: Callable[[IndexVersions], IndexVersions]) -> IndexVersions:
        """Change them by one update that is refused where another came first."""
        return self._meta.change_index_versions(told)

    def drop(self, number: int) -> None:
        """Drop its collections."""
        names = Names(self._config.collection, number)
        for collection in sorted(self._collections(names) - {names.meta}):
            self._client.command({"drop": collection})

    def truncations(self) -> dict[str, str]:
        """Read the newest TRUNCATE of each table; every plan does, so a store that has vanished is not written into."""
        return dict(self._meta.told().truncations)

    def read(self, document_ids: Sequence[str]) -> dict[str, StoredDocument]:
        """Read documents as they are."""
        if not self._is_store:
            self._meta.told()
            self._is_store = True
        found = self._client.named(self._names.documents, document_ids, READ)
        documents = {name: stored(document) for name, document in found.items()}
        if len(self._read) > MOST_AT_HAND:
            self._read.clear()
        self._read |= {chunk.chunk_id: chunk.content_hash for each in documents.values() for chunk in each.chunks}
        return documents

    def missing_vectors(self, content_hashes: Sequence[str]) -> set[str]:
        """Compare with the vectors that are kept."""
        return set(content_hashes) - self._client.named(self._names.vectors, content_hashes, ["_id"]).keys()

    def vectors(self, content_hashes: Sequence[str]) -> dict[str, np.ndarray]:
        """Read vectors by their hashes, those set aside too."""
        kept = self._client.named(self._names.vectors, content_hashes, VECTOR)
        return {name: vector_in(vector) for name, vector in kept.items()}

    def keep_vectors(self, vectors: Mapping[str, np.ndarray], *, replace: bool = False) -> None:
        """Insert vectors; the time beside them is this writer's clock."""
        now = _now_ms()
        operations = [_keep(name, vector, now, replace=replace) for name, vector in sorted(vectors.items())]
        there = self._client.bulk(self._names.vectors, operations).held if operations else frozenset()
        if len(self._at_hand) > MOST_AT_HAND:
            self._at_hand.clear()
        self._at_hand |= {name: now for place, name in enumerate(sorted(vectors)) if place not in there}

    def write(self, writes: Sequence[DocumentWrite]) -> set[str]:
        """Write each document under its guard: an insert is refused where there is one, an update where it is another's.

        DocumentDB counts the documents that updates matched, and does not say which: where they are too few, those that
        bear this write's mark are asked for. One that was written over since is then taken for refused, and planned again.
        """
        held = self._held({chunk.content_hash for write in writes for chunk in write.added})
        ready = [write for write in writes if all(chunk.content_hash in held for chunk in write.added)]
        refused = {write.document_id for write in writes} - {write.document_id for write in ready}
        if not ready:
            return refused
        mark, now = uuid.uuid4().hex, _now_ms()
        operations = [_guarded(write, head(write, self._config.language, mark, now)) for write in ready]
        outcome = self._client.bulk(self._names.documents, operations, of_documents=True)
        refused |= {ready[place].document_id for place in outcome.held}
        updated = {write.document_id for write in ready if write.base_revision}
        if outcome.matched < len(updated):
            found = self._client.find(
                self._names.documents, {"_id": {"$in": sorted(updated)}, "written_by": mark}, ["_id"]
            )
            refused |= updated - {document["_id"] for document in found}
        written = [write for write in ready if write.document_id not in refused]
        self._take_up({chunk.content_hash for write in written for chunk in write.added})
        self._set_aside({self._read[name] for write in written for name in write.dropped if name in self._read})
        return refused

    def truncate(self, table: str, sequence: str) -> None:
        """Raise the table's mark: readers obey it at once, and `sweep` removes what it covers."""
        self._meta.truncated(table, sequence)

    def note_progress(self, indexed_as_of_us: int) -> None:
        """Raise the progress."""
        self._meta.reached(indexed_as_of_us)

    def vectors_since(self, moment_us: int) -> Iterator[tuple[str, np.ndarray]]:
        """Stream vectors by the time they were kept, which is their writers' clock."""
        query = {"kept_at": {"$gte": moment_us // 1000}}
        for document in self._client.find(self._names.vectors, query, VECTOR):
            yield document["_id"], vector_in(document)

    def bucket_checksums(self, width: int, *, vectors: bool) -> dict[str, BucketChecksum]:
        """Read everything, and add up here."""
        return checksums(held(self._client, self._names, self.truncations(), vectors=vectors), width)

    def documents_in(self, bucket: str, width: int, *, vectors: bool) -> Iterator[HeldDocument]:
        """Read the documents whose names begin so."""
        found = held(self._client, self._names, self.truncations(), bucket, vectors=vectors)
        return (document for document in found if document.document_id[:width] == bucket)

    def documents_by_spec(self) -> dict[tuple[str, str], int]:
        """Let the store group them."""
        seen = visible(self._meta.told().truncations, {})
        both = {"_id": {"table": "$table", "recipe": "$recipe"}, "documents": {"$sum": 1}}
        found = self._client.aggregate(self._names.documents, {"$match": seen}, {"$group": both})
        return {(each["_id"]["table"], each["_id"]["recipe"]): each["documents"] for each in found}

    def remove(self, revisions: Mapping[str, int]) -> None:
        """Delete documents under their revision; a row that has none counts as of revision 0."""
        for some in batched(sorted(revisions.items()), MOST_NAMES):
            still = {"$or": [{"_id": name, "revision": {"$in": [n] if n else [0, None]}} for name, n in some]}
            self._set_aside(self._delete(still))

    def sweep(self) -> None:
        """Remove truncated rows and vectors that no chunk has named for ten minutes."""
        for table, sequence in self.truncations().items():
            covered = {"table": table, "sequence": {"$lte": sequence}}
            self._set_aside(self._delete(covered))
        old = {"kept_at": {"$lt": _now_ms() - UNUSED_MS}}
        kept = self._client.find(self._names.vectors, old, ["_id"])
        for page in batched((document["_id"] for document in kept), MOST_NAMES):
            naming = {"chunks.content_hash": {"$in": page}}
            found = self._client.find(self._names.documents, naming, ["chunks.content_hash"])
            used = {chunk["content_hash"] for document in found for chunk in document["chunks"]}
            self._take_up(used & set(page))  # set aside by a writer that was killed before its second look
            if unused := sorted(set(page) - used):
                self._client.delete(self._names.vectors, {"_id": {"$in": unused}, **old})

    def summary(self) -> StoreSummary:
        """Count documents, chunks and pending columns."""
        told = self._meta.told()
        seen, documents = visible(told.truncations, {}), self._names.documents
        counted = {"_id": None, "documents": {"$sum": 1}, "chunks": {"$sum": "$chunk_count"}}
        shown = {"$match": seen | {"chunk_count": {"$gt": 0}}}
        totals = next(self._client.aggregate(documents, shown, {"$group": counted}), {"documents": 0, "chunks": 0})
        holes = {"$match": seen | {"pending.0": {"$exists": True}}}
        tables = self._client.aggregate(documents, holes, {"$group": {"_id": "$table", "documents": {"$sum": 1}}})
        pending = {table["_id"]: table["documents"] for table in tables}
        return StoreSummary(totals["documents"], totals["chunks"], pending, told.progress)

    def close(self) -> None:
        """Close connections; the next call opens others."""
        super().close()
        self._client.close()

    def _delete(self, query: Mapping[str, Any]) -> set[str]:
        """Delete documents; the vectors that they named."""
        found = self._client.find(self._names.documents, query, ["chunks.content_hash"])
        named = {chunk["content_hash"] for document in found for chunk in document.get("chunks", ())}
        self._client.delete(self._names.documents, query)
        return named

    @property
    def _names(self) -> Names:
        return Names(self._config.collection, self._version_number())

    def _create(self, names: Names) -> None:
        for collection, wanted in indexes(self._config, names, self._dimensions).items():
            self._client.command({"createIndexes": collection, "indexes": wanted})

    def _collections(self, names: Names) -> set[str]:
        """Those that are there."""
        wanted = {names.documents, names.vectors, names.meta}
        asked = {"listCollections": 1, "nameOnly": True, "filter": {"name": {"$in": sorted(wanted)}}}
        return wanted & {each["name"] for each in self._client.command(asked)["cursor"]["firstBatch"]}

    def _held(self, content_hashes: set[str]) -> set[str]:
        """Those of the vectors that are kept, and that no sweep takes before the chunks that name them are written.

        A sweep takes what is old and unnamed, and looks again as it deletes: an old vector is made young first.
        """
        now = _now_ms()
        young = {name for name in content_hashes if self._at_hand.get(name, 0) > now - UNUSED_MS // 2}
        found = self._client.named(self._names.vectors, sorted(content_hashes - young), ["kept_at", "is_aside"])
        self._take_up({name for name, vector in found.items() if "is_aside" in vector})
        old = sorted(name for name, vector in found.items() if vector["kept_at"] < now - UNUSED_MS // 2)
        if old:
            self._client.update(self._names.vectors, {"_id": {"$in": old}}, {"$max": {"kept_at": now}})
            still = self._client.named(self._names.vectors, old, ["_id"])
            found = {name: vector for name, vector in found.items() if name not in old or name in still}
        return young | found.keys()

    def _take_up(self, content_hashes: set[str]) -> None:
        """Let a search find these vectors; looked up first, since hardly ever is one of them aside."""
        found = self._client.named(self._names.vectors, sorted(content_hashes), ["is_aside"]) if content_hashes else {}
        aside = sorted(name for name, vector in found.items() if "is_aside" in vector)
        if aside:
            self._client.update(self._names.vectors, {"_id": {"$in": aside}, "is_aside": True}, _TAKE_UP)

    def _set_aside(self, content_hashes: set[str]) -> None:
        """Let no search find those of the vectors that no document names.

        Who names one meanwhile takes it up after that, or is seen by the second look here: it is found in either case.
        """
        for page in batched(sorted(content_hashes), MOST_NAMES):
            unnamed = set(page) - self._named(page)
            if unnamed:
                searched = {"_id": {"$in": sorted(unnamed)}, "is_aside": {"$exists": False}}
                self._client.update(self._names.vectors, searched, _SET_ASIDE)
                self._take_up(self._named(sorted(unnamed)))
            for name in unnamed:
                self._at_hand.pop(name, None)

    def _named(self, content_hashes: Sequence[str]) -> set[str]:
        """Those of the vectors that a document names; all of them where too many documents do."""
        naming = {"chunks.content_hash": {"$in": list(content_hashes)}}
        found = list(self._client.find(self._names.documents, naming, ["chunks.content_hash"], MOST_NAMING))
        if len(found) == MOST_NAMING:
            return set(content_hashes)
        return set(content_hashes) & {chunk["content_hash"] for document in found for chunk in document["chunks"]}


def _keep(name: str, vector: np.ndarray, now_ms: int, *, replace: bool) -> InsertOne[dict[str, Any]] | UpdateOne:
    """A vector to be inserted unless it is there, or put where it is."""
    from pymongo import InsertOne, UpdateOne

    fields = {"embedding": encoded(vector), "kept_at": now_ms}
    if replace:
        return UpdateOne({"_id": name}, {"$set": fields, "$unset": {"aside": "", "is_aside": ""}}, upsert=True)
    return InsertOne({"_id": name, **fields})


def _guarded(write: DocumentWrite, fields: dict[str, Any]) -> InsertOne[dict[str, Any]] | UpdateOne:
    """A write that the store refuses unless it holds what the write was planned on."""
    from pymongo import InsertOne, UpdateOne

    if not write.base_revision:
        return InsertOne({"_id": write.document_id, **fields})
    planned_on = {"_id": write.document_id, "revision": write.base_revision, "sequence": {"$lte": fields["sequence"]}}
    return UpdateOne(planned_on, {"$set": fields})


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

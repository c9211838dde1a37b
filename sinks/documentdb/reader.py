"""Search in DocumentDB: nearest vectors joined with the documents that name them, and words weighed by idf.

Words are stored with each chunk and indexed, since `$text` does not return how frequent a word is.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import batched, chain
from typing import Any

import numpy as np

from embeddings.protocol import Vector
from sinks.bulk_loads import filling, still_filling
from sinks.documentdb import schema
from sinks.documentdb.client import MOST_NAMES, DocumentDBClient
from sinks.documentdb.config import DocumentDBConfig
from sinks.documentdb.filtering import conditions
from sinks.documentdb.meta import Meta
from sinks.documentdb.rows import HASHES, VECTOR, vector_of
from sinks.documentdb.schema import Names
from sinks.idf import COMMON_AT, MOST_COUNTED, Remembered, WeighedWords, weighed_by_language
from sinks.search import (
    ANYTHING,
    Filters,
    Freshness,
    Hit,
    Index,
    Question,
    VisibleDocument,
    version_of,
    visible_document,
)
from sinks.versions import FIRST, IndexVersions
from transforms.documents.languages import languages_of, mark_of, marked, text_by_language
from transforms.documents.words import words_of
from transforms.values import exact_json

SPARE = 4
"""Vectors requested at first for each document asked for, since a document may have several near ones."""

GROWTH = 4
"""The factor by which the request grows if filters and deletes left too few documents."""

MOST_NEAR = 1000
"""Vectors that one search can return: the limit of `efSearch` (AWS, "Vector search for Amazon DocumentDB")."""

FEW = 500
"""Documents that pass a filter which are compared exactly at once: the index would be asked in vain, up to `MOST_NEAR`."""

MOST_NAMING = 2_000
"""Documents read for one set of vectors; only where many documents have the same text there are more."""

MOST_TRIES = 5
"""Tries of a search whose reads concurrent writes made inconsistent."""

CHUNKS = "chunks"
DOCUMENT = (
    "table", "key", "metadata", "sequence", "commit_time_us", "written_at", "chunks.chunk_index", "chunks.chunk_text",
)  # fmt: skip


class DocumentDBIndex(Index):
    """An `Index` over one client; it never writes. Not thread-safe.

    All of a hit comes from one read of one document of DocumentDB, so it never mixes two versions.
    """

    def __init__(self, config: DocumentDBConfig, fingerprint: str, index_version: int = FIRST) -> None:
        """Connects on first use. `fingerprint` is the model that asks, `index_version` the number it reads."""
        self._config = config
        self._fingerprint = fingerprint
        self._names = Names(config.collection, index_version)
        self._client = DocumentDBClient(config)
        self._meta = Meta(self._client, config)
        self.weigh = Remembered(self._weigh)

    def check(self) -> None:
        """Connect, and compare the store's model with the one that asks."""
        self._config.place.check_model_of(self.index_versions(), self._names.index_version, self._fingerprint)

    def index_versions(self) -> IndexVersions:
        """Read the index versions from the meta."""
        return self._meta.facts().index_versions

    def dense(self, question: Question, k: int, filters: Filters = ANYTHING) -> list[Hit]:
        """Request more and more of the nearest vectors until enough visible documents name them, or there are no more.

        Beyond the limit of the index, the chunks of the documents that pass the filter are compared exactly; so are all in a
        load, which has no index, up to `MOST_COMPARED` of them.
        """
        self.weigh.forget(question.text)
        (words, visible), size = self._words_and_visible(question.text, filters), k * SPARE
        if self._is_loading():
            return self._exact(question.vector, visible, words, k)
        if filters != ANYTHING and self._client.count(self._names.documents, visible, FEW + 1) <= FEW:
            return self._exact(question.vector, visible, words, k)
        while True:
            near, documents = self._consistent(question.vector, min(size, MOST_NEAR), visible)
            hits = _best(documents, near, words)
            if len(hits) >= k or self._client.size(self._names.vectors) <= len(near):
                return hits[:k]
            if size >= MOST_NEAR:
                return self._exact(question.vector, visible, words, k)
            size *= GROWTH

    def lexical(self, question: Question, k: int, filters: Filters = ANYTHING) -> list[Hit]:
        """Rank the chunks that contain any of the rarer words by coverage; similarity breaks ties."""
        words, visible = self._words_and_visible(question.text, filters)
        if not words.searched:
            return []
        hits: list[Hit] = []
        for _ in range(MOST_TRIES):
            chosen = _first(self._covering(visible, words), k)
            near = self._similarities(question.vector, {chunk["content_hash"] for chunk in chosen})
            documents = self._naming(visible, "chunks.chunk_id", [chunk["chunk_id"] for chunk in chosen])
            hits = _best(documents, near, words, by_words=True)
            if {chunk["_id"] for chunk in chosen} == {hit.document_id for hit in hits}:
                break
        return hits[:k]

    def coverage(self, question: str, texts: Sequence[str]) -> list[float]:
        """Analyse texts as the store does, in each of its languages, and weigh the words they share with the question."""
        weighed = self.weigh(question, languages_of(self._meta.facts().tables_of, ()))
        own = self._config.language
        return [
            max(part.coverage(words_of(printable, language or own)) for language, part in weighed.items())
            for printable in map(exact_json.printable, texts)
        ]

    def live(self, chunk_ids: Sequence[str], filters: Filters = ANYTHING) -> set[str]:
        """Look chunks up by the filter of every search."""
        query = self._visible(filters) | {"chunks.chunk_id": {"$in": list(chunk_ids)}}
        documents = self._client.find(self._names.documents, query, ["chunks.chunk_id"])
        return set(chunk_ids) & {chunk["chunk_id"] for document in documents for chunk in document[CHUNKS]}

    def versions(self, document_ids: Sequence[str], filters: Filters = ANYTHING) -> dict[str, str]:
        """Look documents up by their names, and by the filter of every search."""
        visible = self._visible(filters)
        return {
            document["_id"]: version_of(document["sequence"])
            for part in batched(dict.fromkeys(document_ids), MOST_NAMES)
            for document in self._client.find(self._names.documents, {**visible, "_id": {"$in": part}}, ["sequence"])
        }

    def document(self, document_id: str, filters: Filters = ANYTHING) -> VisibleDocument | None:
        """Read one document, which holds its chunks."""
        query = {**self._visible(filters), "_id": document_id}
        documents = self._client.find(self._names.documents, query, DOCUMENT)
        return next((visible_document(document_id, stored["table"], stored) for stored in documents), None)

    def freshness(self) -> Freshness:
        """Read the progress that the index job writes after each batch, and each second while the source is idle."""
        now: dt.datetime = self._client.command({"hello": 1}).get("localTime", dt.datetime.now(dt.UTC))
        return Freshness(self._meta.facts().progress, round(now.replace(tzinfo=dt.UTC).timestamp() * 1e6))

    def close(self) -> None:
        """Close connections; the next call opens others."""
        self._client.close()

    def _visible(self, filters: Filters) -> dict[str, Any]:
        return schema.visible(self._meta.facts().truncations, conditions(filters))

    def _is_loading(self) -> bool:
        """Whether a bulk load is under way; raises UnavailableError for more vectors than are compared exactly."""
        load = self._meta.facts().index_versions.bulk_load_of(self._names.index_version)
        if load is not None and (present := self._client.size(self._names.vectors)) > schema.MOST_COMPARED:
            raise still_filling(self._config.name, filling(load, present, None))
        return load is not None

    def _words_and_visible(self, text: str, filters: Filters) -> tuple[WeighedWords, dict[str, Any]]:
        """A question's words, and the filter for the documents that it may find."""
        facts = self._meta.facts()
        words = self.weigh(text, languages_of(facts.tables_of, filters.tables))
        return WeighedWords.joined(words), schema.visible(facts.truncations, conditions(filters))

    def _weigh(self, text: str, languages: tuple[str, ...]) -> dict[str, WeighedWords]:
        """Weigh a question's words in each language by the number of its documents with each."""
        texts = text_by_language(exact_json.printable(text), languages, self._config.language)
        whole = self._client.size(self._names.documents)
        others = {language: self._with(mark_of(language), COMMON_AT * 10) for language in languages[1:]}
        counts = {}
        for language, part in texts.items():
            words = words_of(part, language or self._config.language)[:MOST_COUNTED]
            counts[language] = {word: self._with(marked(word, language), COMMON_AT) for word in words}
        return weighed_by_language(counts, whole, others)

    def _with(self, word: str, most: int) -> int:
        """The number of live documents with a word, counted no further than `most`."""
        return self._client.count(self._names.documents, {"live": True, "chunks.words": word}, most)

    def _consistent(
        self, vector: Vector, most: int, visible: Mapping[str, Any]
    ) -> tuple[dict[str, float], list[Mapping[str, Any]]]:
        """The nearest vectors and the visible documents that name them, as if read at one moment.

        A document that is rewritten between the two reads no longer names the vectors that were returned: while some vectors
        have no document, both are read again, until the result is the same twice.
        """
        before: tuple[set[str], set[str]] | None = None
        for _ in range(MOST_TRIES):
            near = self._nearest(vector, most)
            documents = list(self._naming(visible, HASHES, near))
            unnamed = near.keys() - {chunk["content_hash"] for document in documents for chunk in document[CHUNKS]}
            if not unnamed or (set(near), unnamed) == before:
                break
            before = set(near), unnamed
        return near, documents

    def _nearest(self, vector: Vector, most: int) -> dict[str, float]:
        """The nearest vectors by content hash, with their cosines; DocumentDB returns neither cosine nor order."""
        search = {
            "vector": vector.tolist(), "path": "embedding", "similarity": "cosine", "k": most, "efSearch": most,
        }  # fmt: skip
        stages = {"$search": {"vectorSearch": search}}, {"$project": {"embedding": 1}}
        return _cosines(vector, self._client.aggregate(self._names.vectors, *stages))

    def _similarities(self, vector: Vector, content_hashes: Collection[str]) -> dict[str, float]:
        """The cosine of each of these vectors, also of one that has left the index since its chunk was read."""
        return _cosines(vector, self._client.get(self._names.vectors, sorted(content_hashes), VECTOR).values())

    def _naming(self, visible: Mapping[str, Any], field: str, values: Collection[str]) -> Iterator[Mapping[str, Any]]:
        """Visible documents with a chunk that has one of these values, each with those chunks alone."""
        named = {"$in": [f"$${field.replace('chunks', 'chunk')}", list(values)]}
        chosen = {"$filter": {"input": f"${CHUNKS}", "as": "chunk", "cond": named}}
        return self._client.aggregate(
            self._names.documents, {"$match": {**visible, field: {"$in": list(values)}}}, {"$limit": MOST_NAMING},
            {"$project": {"table": 1, "key": 1, "metadata": 1, "sequence": 1, CHUNKS: chosen}},
        )  # fmt: skip

    def _covering(self, visible: Mapping[str, Any], words: WeighedWords) -> list[Mapping[str, Any]]:
        """Chunks that contain any of the searched words, by descending coverage."""
        rare = {"chunks.words": {"$in": list(words.searched)}}
        shares = [{"$cond": [{"$in": [word, "$chunks.words"]}, share, 0.0]} for word, share in words.shares.items()]
        shown = {"chunk_id": "$chunks.chunk_id", "content_hash": "$chunks.content_hash", "coverage": {"$add": shares}}
        return list(self._client.aggregate(
            self._names.documents, {"$match": {**visible, **rare}}, {"$unwind": f"${CHUNKS}"}, {"$match": rare},
            {"$project": shown}, {"$sort": {"coverage": -1, "_id": 1}}, {"$limit": COMMON_AT},
        ))  # fmt: skip

    def _exact(self, vector: Vector, visible: Mapping[str, Any], words: WeighedWords, k: int) -> list[Hit]:
        """The k nearest visible documents, among documents with at most `MOST_COMPARED` chunks in all."""
        hits: list[Hit] = []
        for _ in range(MOST_TRIES):
            hashes: dict[str, list[str]] = {}
            chunks = 0
            for document in self._client.find(self._names.documents, {**visible, "chunk_count": {"$gt": 0}}, [HASHES]):
                hashes[document["_id"]] = [chunk["content_hash"] for chunk in document[CHUNKS]]
                chunks += len(hashes[document["_id"]])
                if chunks > schema.MOST_COMPARED:
                    break
            near = self._similarities(vector, set(chain.from_iterable(hashes.values())))
            nearest = sorted(hashes, key=lambda name: (-max(near.get(h, -1.0) for h in hashes[name]), name))[:k]
            named = list(chain.from_iterable(hashes[name] for name in nearest))
            hits = _best(self._naming({**visible, "_id": {"$in": nearest}}, HASHES, named), near, words)
            if {hit.document_id for hit in hits} == set(nearest):
                break
        return hits


def _first(ranked: Sequence[Mapping[str, Any]], k: int) -> list[Mapping[str, Any]]:
    """Chunks of the first k documents, and all others of the same coverage as the last."""
    best: dict[str, float] = {}
    for chunk in ranked:
        best.setdefault(chunk["_id"], chunk["coverage"])
    least = list(best.values())[:k][-1] if best else 0.0
    return [chunk for chunk in ranked if chunk["coverage"] >= least]


def _cosines(vector: Vector, documents: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    by_hash = {document["_id"]: vector_of(document) for document in documents}
    if not by_hash:
        return {}
    vectors = np.stack(list(by_hash.values()))
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(vector)
    cosines = np.divide(vectors @ vector, lengths, out=np.zeros(len(by_hash), "f4"), where=lengths > 0)
    return dict(zip(by_hash, map(float, cosines), strict=True))


def _best(
    documents: Iterable[Mapping[str, Any]], near: Mapping[str, float], words: WeighedWords, *, by_words: bool = False
) -> list[Hit]:
    """The best chunk of each document: the nearest, or the one that covers most; the best document first."""

    def order(hit: Hit) -> tuple[float, float]:
        return (-hit.coverage if by_words else 0.0), -hit.similarity

    hits: list[Hit] = []
    for document in documents:
        identity = document["_id"], document["table"], exact_json.loads(document["key"])
        metadata, version = exact_json.loads(document["metadata"]), version_of(document["sequence"])
        candidates = [
            Hit(
                *identity, c["chunk_id"], c["chunk_index"], c["chunk_text"], metadata, near[c["content_hash"]],
                words.coverage(c["words"]), version,
            )
            for c in document[CHUNKS] if c["content_hash"] in near
        ]  # fmt: skip
        hits += sorted(candidates, key=lambda hit: (*order(hit), hit.chunk_index))[:1]
    return sorted(hits, key=lambda hit: (*order(hit), hit.document_id))

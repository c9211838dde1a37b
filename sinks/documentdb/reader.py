"""Searching a store in DocumentDB: nearest vectors joined with the documents that name them, and words weighed by rarity.

Words are the store's own, written beside each chunk and found by an index, since `$text` tells nothing of how rare a word is.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sinks.documentdb.client import DocumentDBClient
from sinks.documentdb.meta import Meta
from sinks.documentdb.rows import VECTOR, vector_in
from sinks.documentdb.schema import Names, visible
from sinks.idf import COMMON_AT, MOST_COUNTED, shares, weighed, worth_searching
from sinks.metadata_terms import metadata_terms
from sinks.search import ANYTHING, Filters, Freshness, Hit, Question
from sinks.versions import FIRST
from transforms.documents.words import words_of
from transforms.values import exact_json

if TYPE_CHECKING:
    from embeddings.protocol import Vector
    from sinks.documentdb.config import DocumentDBConfig
    from sinks.versions import IndexVersions

SPARE = 4
"""Vectors asked for at first for each document wanted, since a document may have several near ones."""

GROWTH = 4
"""How many times more are asked for when filters and deletes left too few."""

MOST_NEAR = 1000
"""Vectors that one search gives: `efSearch` goes no further (AWS, "Vector search for Amazon DocumentDB")."""

MOST_COMPARED = 10_000
"""Chunks compared one by one with the question when `MOST_NEAR` vectors held too few documents that a filter lets through."""

MOST_NAMING = 2_000
"""Documents read for one set of vectors; more than that only where many documents hold the very same text."""

MOST_LOOKS = 5
"""Times that a search which crossed writes is done again."""

CHUNKS, HASHES = "chunks", "chunks.content_hash"


@dataclass(frozen=True)
class WeighedWords:
    """A question's words as the store keeps them."""

    shares: Mapping[str, float]
    """The part of the question's information that each carries; they sum to 1."""
    searched: Sequence[str]
    """Those worth searching for."""

    def coverage(self, words: Collection[str]) -> float:
        """The part of the question's information that these words carry."""
        return sum(self.shares.get(word, 0.0) for word in set(words))


class DocumentDBIndex:
    """An `Index` over one client. Not for use by several threads at once.

    All that a hit tells of a document comes from one document of DocumentDB, so never from two versions.
    """

    def __init__(self, config: DocumentDBConfig, fingerprint: str, index_version: int = FIRST) -> None:
        """Keep the configuration, the model that asks and the number of its index version; nothing is opened yet."""
        self._config = config
        self._fingerprint = fingerprint
        self._names = Names(config.collection, index_version)
        self._client = DocumentDBClient(config)
        self._meta = Meta(self._client, config)
        self.weigh = lru_cache(maxsize=8)(self._weigh)

    def check(self) -> None:
        """Connect, and compare the store's model with ours."""
        self._config.place.check_active(self.index_versions(), self._names.index_version, self._fingerprint)

    def index_versions(self) -> IndexVersions:
        """Read them from the meta."""
        return self._meta.told().index_versions

    def dense(self, question: Question, k: int, filters: Filters = ANYTHING) -> list[Hit]:
        """Ask for ever more of the nearest vectors until enough visible documents name them, or there are no more.

        Where the index gives no more, the chunks of the documents that the filter lets through are compared one by one.
        """
        words, seen, wanted = self.weigh(question.text), self._visible(filters), k * SPARE
        while True:
            near, documents = self._settled(question.vector, min(wanted, MOST_NEAR), seen)
            hits = _best(documents, near, words)
            if len(hits) >= k or self._client.size(self._names.vectors) <= len(near):
                return hits[:k]
            if wanted >= MOST_NEAR:
                return self._compared(question.vector, seen, words, k)
            wanted *= GROWTH

    def lexical(self, question: Question, k: int, filters: Filters = ANYTHING) -> list[Hit]:
        """Rank the chunks that hold any of the rarer words by coverage; nearness in meaning breaks ties."""
        words = self.weigh(question.text)
        if not words.searched:
            return []
        seen = self._visible(filters)
        hits: list[Hit] = []
        for _ in range(MOST_LOOKS):
            chosen = _first(self._covering(seen, words), k)
            near = self._similarities(question.vector, {chunk["content_hash"] for chunk in chosen})
            documents = self._naming(seen, "chunks.chunk_id", [chunk["chunk_id"] for chunk in chosen])
            hits = _best(documents, near, words, by_words=True)
            if {chunk["_id"] for chunk in chosen} == {hit.document_id for hit in hits}:
                break
        return hits[:k]

    def coverage(self, question: str, texts: Sequence[str]) -> list[float]:
        """Take texts apart as the store does, and weigh the words they share with the question."""
        weighed = self.weigh(question)
        return [weighed.coverage(words_of(exact_json.printable(text), self._config.language)) for text in texts]

    def live(self, chunk_ids: Sequence[str]) -> set[str]:
        """Look chunks up where every reader looks."""
        asked = {"chunks.chunk_id": {"$in": list(chunk_ids)}}
        found = self._client.find(self._names.documents, self._visible(ANYTHING) | asked, ["chunks.chunk_id"])
        return set(chunk_ids) & {chunk["chunk_id"] for document in found for chunk in document[CHUNKS]}

    def freshness(self) -> Freshness:
        """Read what the index job notes after each batch, and each second while the source is idle."""
        now: dt.datetime = self._client.command({"hello": 1}).get("localTime", dt.datetime.now(dt.UTC))
        return Freshness(self._meta.told().progress, round(now.replace(tzinfo=dt.UTC).timestamp() * 1e6))

    def close(self) -> None:
        """Close connections; the next call opens others."""
        self._client.close()

    def _weigh(self, text: str) -> WeighedWords:
        """Ask how rare the question's words are, counting documents no further than `COMMON_AT`."""
        words = words_of(exact_json.printable(text), self._config.language)[:MOST_COUNTED]
        if not words:
            return WeighedWords({}, ())
        documents = self._names.documents
        counts = weighed(
            {word: self._client.count(documents, {"live": True, "chunks.words": word}, COMMON_AT) for word in words}
        )
        return WeighedWords(shares(counts, self._client.size(documents)), worth_searching(counts))

    def _visible(self, filters: Filters) -> dict[str, Any]:
        conditions: dict[str, Any] = {}
        if filters.tables:
            conditions["table"] = {"$in": list(filters.tables)}
        if terms := metadata_terms(filters.metadata):
            conditions["metadata_terms"] = {"$all": terms}
        return visible(self._meta.told().truncations, conditions)

    def _settled(
        self, vector: Vector, most: int, seen: Mapping[str, Any]
    ) -> tuple[dict[str, float], list[Mapping[str, Any]]]:
        """The nearest vectors and the visible documents that name them, as if read at one moment.

        A document that is cut anew between the two reads no longer names the vectors that were found: while there are
        vectors without a document, both are read again, until that changes nothing.
        """
        before: tuple[set[str], set[str]] | None = None
        for _ in range(MOST_LOOKS):
            near = self._nearest(vector, most)
            documents = list(self._naming(seen, HASHES, near))
            unnamed = near.keys() - {chunk["content_hash"] for document in documents for chunk in document[CHUNKS]}
            if not unnamed or (set(near), unnamed) == before:
                break
            before = set(near), unnamed
        return near, documents

    def _nearest(self, vector: Vector, most: int) -> dict[str, float]:
        """The nearest vectors by content hash, and the cosine of each; DocumentDB tells neither cosine nor order."""
        search = {
            "vector": vector.tolist(), "path": "embedding", "similarity": "cosine", "k": most, "efSearch": most,
        }  # fmt: skip
        stages = {"$search": {"vectorSearch": search}}, {"$project": {"embedding": 1}}
        return _cosines(vector, self._client.aggregate(self._names.vectors, *stages))

    def _similarities(self, vector: Vector, content_hashes: Collection[str]) -> dict[str, float]:
        """The cosine of each of these vectors, also of those that a writer has set aside since their chunks were read."""
        found = self._client.named(self._names.vectors, sorted(content_hashes), VECTOR)
        return _cosines(vector, found.values())

    def _naming(self, seen: Mapping[str, Any], field: str, values: Collection[str]) -> Iterator[Mapping[str, Any]]:
        """Visible documents that have a chunk with one of these values, each with those chunks alone."""
        wanted = list(values)
        named = {"$in": [f"$${field.replace('chunks', 'chunk')}", wanted]}
        chosen = {"$filter": {"input": f"${CHUNKS}", "as": "chunk", "cond": named}}
        return self._client.aggregate(
            self._names.documents, {"$match": {**seen, field: {"$in": wanted}}}, {"$limit": MOST_NAMING},
            {"$project": {"table": 1, "key": 1, "metadata": 1, CHUNKS: chosen}},
        )  # fmt: skip

    def _covering(self, seen: Mapping[str, Any], words: WeighedWords) -> list[Mapping[str, Any]]:
        """Chunks that hold any of the words searched for, those with the greatest coverage first."""
        rare = {"chunks.words": {"$in": list(words.searched)}}
        held = [{"$cond": [{"$in": [word, "$chunks.words"]}, share, 0.0]} for word, share in words.shares.items()]
        shown = {"chunk_id": "$chunks.chunk_id", "content_hash": "$chunks.content_hash", "coverage": {"$add": held}}
        return list(self._client.aggregate(
            self._names.documents, {"$match": {**seen, **rare}}, {"$unwind": f"${CHUNKS}"}, {"$match": rare},
            {"$project": shown}, {"$sort": {"coverage": -1, "_id": 1}}, {"$limit": COMMON_AT},
        ))  # fmt: skip

    def _compared(self, vector: Vector, seen: Mapping[str, Any], words: WeighedWords, k: int) -> list[Hit]:
        """The k visible documents with the nearest chunks, of documents with `MOST_COMPARED` chunks at most."""
        hits: list[Hit] = []
        for _ in range(MOST_LOOKS):
            held: dict[str, list[str]] = {}
            chunks = 0
            for document in self._client.find(self._names.documents, {**seen, "chunk_count": {"$gt": 0}}, [HASHES]):
                held[document["_id"]] = [chunk["content_hash"] for chunk in document[CHUNKS]]
                chunks += len(held[document["_id"]])
                if chunks > MOST_COMPARED:
                    break
            near = self._similarities(vector, {name for names in held.values() for name in names})
            nearest = sorted(held, key=lambda name: (-max(near.get(each, -1.0) for each in held[name]), name))[:k]
            named = [each for name in nearest for each in held[name]]
            hits = _best(self._naming({**seen, "_id": {"$in": nearest}}, HASHES, named), near, words)
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


def _cosines(vector: Vector, found: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    held = {document["_id"]: vector_in(document) for document in found}
    if not held:
        return {}
    vectors = np.stack(list(held.values()))
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(vector)
    cosines = np.divide(vectors @ vector, lengths, out=np.zeros(len(held), "f4"), where=lengths > 0)
    return dict(zip(held, map(float, cosines), strict=True))


def _best(
    documents: Iterable[Mapping[str, Any]], near: Mapping[str, float], words: WeighedWords, *, by_words: bool = False
) -> list[Hit]:
    """The best chunk of each document: the nearest, or the one that covers most; the best document first."""

    def order(hit: Hit) -> tuple[float, float]:
        return (-hit.coverage if by_words else 0.0), -hit.similarity

    hits: list[Hit] = []
    for document in documents:
        told = document["_id"], document["table"], exact_json.loads(document["key"])
        metadata = exact_json.loads(document["metadata"])
        of_it = [
            Hit(
                *told, c["chunk_id"], c["chunk_index"], c["chunk_text"], metadata, near[c["content_hash"]],
                words.coverage(c["words"]),
            )
            for c in document[CHUNKS] if c["content_hash"] in near
        ]  # fmt: skip
        hits += sorted(of_it, key=lambda hit: (*order(hit), hit.chunk_index))[:1]
    return sorted(hits, key=lambda hit: (*order(hit), hit.document_id))

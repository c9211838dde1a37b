"""Search in OpenSearch: nearest vectors (HNSW), and words weighed by idf, in chunks nested in documents."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import batched
from typing import Any

import numpy as np

from embeddings.protocol import Vector
from sinks.idf import COMMON_AT, MOST_COUNTED, Remembered, WeighedWords, weighed_by_language
from sinks.opensearch import schema
from sinks.opensearch.client import OpenSearchClient
from sinks.opensearch.config import OpenSearchConfig
from sinks.opensearch.filtering import clauses
from sinks.opensearch.meta import Meta
from sinks.opensearch.schema import Names, analyzer, text_field
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
from transforms.documents.languages import OWN, languages_of, marked, text_by_language, unmarked
from transforms.values import exact_json

BREADTH = 200
"""The least number of neighbours collected from each segment's graph (Lucene's k), on which recall depends."""

MOST_CHARACTERS = 10_000
"""Characters of one `_analyze` request: OpenSearch refuses more than 10,000 words, and a Chinese character is one."""

TIE = 0.001
"""The weight of similarity beside coverage in a lexical search: it orders chunks of equal coverage alone."""

LANGUAGE = "chunks.language"
ROW = ("document_id", "table_name", "key", "metadata", "sequence")
DOCUMENT = (*ROW, "commit_time_us", "written_at", "chunks.chunk_index", "chunks.chunk_text")
MOST_NAMED = 1_000
"""Documents that one search names."""
CHUNK = tuple(f"chunks.{name}" for name in ("chunk_id", "chunk_index", "chunk_text", "embedding"))


class OpenSearchIndex(Index):
    """An `Index` over one client; it never writes. Not thread-safe.

    A document and its chunks are one document of OpenSearch, so a hit never mixes two versions.
    """

    def __init__(self, config: OpenSearchConfig, fingerprint: str, index_version: int = FIRST) -> None:
        """Connects on first use. `fingerprint` is the model that asks, `index_version` the number it reads."""
        self._config = config
        self._fingerprint = fingerprint
        self._names = Names(config.index, index_version)
        self._client = OpenSearchClient(config)
        self._meta = Meta(self._client, self._names)
        self.weigh = Remembered(self._weigh)

    def check(self) -> None:
        """Connect, and compare the store's model with the one that asks."""
        self._config.place.check_model_of(self.index_versions(), self._names.index_version, self._fingerprint)

    def index_versions(self) -> IndexVersions:
        """Read the index versions from the meta."""
        index_versions = self._meta.index_versions()
        if index_versions is None:
            raise self._config.place.no_store()
        return index_versions

    def dense(self, question: Question, k: int, filters: Filters = ANYTHING) -> list[Hit]:
        """Search the HNSW graph among visible chunks alone, then take each document's nearest chunk."""
        self.weigh.forget(question.text)
        words, visible = self._words_and_visible(question.text, filters)
        vector = question.vector.tolist()
        near = {"vector": vector, "k": max(k, BREADTH), "filter": visible}
        nearby = _nested({"knn": {"chunks.embedding": near}})
        nearest = {"script_score": {"query": {"match_all": {}}, "script": _cosine(vector)}}
        named = {"bool": {"must": [nearest], "should": _named(words, 0.0)}}
        query = {"bool": {"must": [nearby], "should": [_nested(named, best=True)]}}
        hits = self._hits(query, question.vector, words, k)
        return sorted(hits, key=lambda hit: (-hit.similarity, hit.document_id))

    def lexical(self, question: Question, k: int, filters: Filters = ANYTHING) -> list[Hit]:
        """Rank the chunks that contain any of the rarer words by coverage; similarity breaks ties."""
        words, visible = self._words_and_visible(question.text, filters)
        if not words.searched:
            return []
        rare = [_has(word) for word in words.searched]
        covering = {"bool": {"filter": [{"bool": {"should": rare}}], "should": _named(words)}}
        nearer = {"script_score": {"script": _cosine(question.vector.tolist())}, "weight": TIE}
        ranked = {"function_score": {"query": covering, "functions": [nearer], "boost_mode": "sum"}}
        query = {"bool": {"must": [_nested(ranked, best=True)], "filter": [visible]}}
        hits = self._hits(query, question.vector, words, k)
        return sorted(hits, key=lambda hit: (-hit.coverage, -hit.similarity, hit.document_id))

    def coverage(self, question: str, texts: Sequence[str]) -> list[float]:
        """Analyse texts as the store does, in each of its languages, and weigh the words they share with the question."""
        covered = [0.0] * len(texts)
        for language, words in self.weigh(question, languages_of(self._meta.of_searches()[1], ())).items():
            covered = list(map(max, covered, map(words.coverage, self._analysed(texts, language))))
        return covered

    def live(self, chunk_ids: Sequence[str], filters: Filters = ANYTHING) -> set[str]:
        """Look chunks up by the filter of every search."""
        named = set(chunk_ids)
        query = {"bool": {"must": [_nested({"terms": {"chunks.chunk_id": sorted(named)}})],
                          "filter": [self._visible(filters)]}}  # fmt: skip
        body = {"size": len(named), "query": query, "_source": ["chunks.chunk_id"]}
        hits = self._search(body)["hits"]["hits"] if named else []
        return named & {chunk["chunk_id"] for hit in hits for chunk in hit["_source"]["chunks"]}

    def versions(self, document_ids: Sequence[str], filters: Filters = ANYTHING) -> dict[str, str]:
        """Search documents by their ids."""
        versions: dict[str, str] = {}
        for part in batched(dict.fromkeys(document_ids), MOST_NAMED):
            rows = self._named(part, filters, ["document_id", "sequence"])
            versions |= {row["document_id"]: version_of(row["sequence"]) for row in rows}
        return versions

    def document(self, document_id: str, filters: Filters = ANYTHING) -> VisibleDocument | None:
        """Search a document by its id; it holds its chunks."""
        rows = self._named([document_id], filters, DOCUMENT)
        return next((visible_document(document_id, row["table_name"], row) for row in rows), None)

    def freshness(self) -> Freshness:
        """Read the progress that the index job writes after each batch, and each second while the source is idle."""
        # The bucket's lower bound is OpenSearch's own clock.
        clock = {"date_range": {"field": "written_at", "ranges": [{"from": "now"}]}}
        response = self._search({"size": 0, "query": {"match_none": {}}, "aggs": {"clock": clock}})
        return Freshness(self._meta.progress(), round(response["aggregations"]["clock"]["buckets"][0]["from"] * 1000))

    def close(self) -> None:
        """Close connections; the next call opens others."""
        self._client.close()

    def _weigh(self, text: str, languages: tuple[str, ...]) -> dict[str, WeighedWords]:
        """Weigh a question's words in each language by the number of its documents with each."""
        texts = text_by_language(text, languages, self._config.language)
        words = {language: self._distinct(part, language) for language, part in texts.items()}
        if not any(words.values()):
            return {language: WeighedWords({}, ()) for language in languages}
        counted = [(language, word) for language in languages for word in words[language]]
        searches: list[Mapping[str, Any]] = [{"size": 0, "track_total_hits": True, "query": {"term": {"live": True}}}]
        searches += [_count({"term": {LANGUAGE: language}}) for language in languages[1:]]
        searches += [_count(_has(marked(word, language)), COMMON_AT) for language, word in counted]
        responses = self._client.multi_search(self._names.documents, searches)
        whole, *counts = [response["hits"]["total"]["value"] for response in responses]
        others = dict(zip(languages[1:], counts, strict=False))
        by_language: dict[str, dict[str, int]] = {language: {} for language in languages}
        for (language, word), count in zip(counted, counts[len(others) :], strict=True):
            by_language[language][word] = count
        return weighed_by_language(by_language, whole, others)

    def _distinct(self, text: str, language: str) -> list[str]:
        analysed = self._analysed(textwrap.wrap(text, MOST_CHARACTERS, break_on_hyphens=False), language)
        return list(dict.fromkeys(word for part in analysed for word in part))[:MOST_COUNTED]

    def _analysed(self, texts: Sequence[str], language: str) -> list[list[str]]:
        """The words of each text, by the analyzer of a language; a text is cut at `MOST_CHARACTERS`.

        OpenSearch analyses several texts as one, with one character between them, and counts offsets in UTF-16 units.
        """
        by_text: list[list[str]] = []
        part: list[str] = []
        for text in [*(exact_json.printable(text)[:MOST_CHARACTERS] for text in texts), None]:
            if part and (text is None or sum(map(len, part)) + len(text) > MOST_CHARACTERS):
                by = {"field": "chunks.chunk_text"} if language == OWN else {"analyzer": analyzer(language)}
                body = {**by, "text": part}
                response = self._client.call("POST", f"/{self._names.documents}/_analyze", body)
                ends = np.cumsum([len(piece.encode("utf-16-le")) // 2 + 1 for piece in part])
                words: list[list[str]] = [[] for _ in part]
                for token in response["tokens"]:
                    words[int(np.searchsorted(ends, token["start_offset"], side="right"))].append(token["token"])
                by_text += words
                part = []
            part += [] if text is None else [text]
        return by_text

    def _visible(self, filters: Filters) -> dict[str, Any]:
        return schema.visible(self._meta.truncations(), *clauses(filters))

    def _words_and_visible(self, text: str, filters: Filters) -> tuple[WeighedWords, dict[str, Any]]:
        """A question's words, and the filter for the documents that it may find."""
        truncations, tables_of = self._meta.of_searches()
        words = self.weigh(text, languages_of(tables_of, filters.tables))
        return WeighedWords.joined(words), schema.visible(truncations, *clauses(filters))

    def _hits(self, query: Mapping[str, Any], vector: Vector, words: WeighedWords, k: int) -> list[Hit]:
        response = self._search({"size": k, "query": query, "_source": list(ROW)})
        return [_hit(hit, vector, words) for hit in response["hits"]["hits"]]

    def _named(self, ids: Sequence[str], filters: Filters, fields: Sequence[str]) -> list[Mapping[str, Any]]:
        """Fields of the visible documents of these ids."""
        query = {"bool": {"filter": [{"terms": {"document_id": list(ids)}}, self._visible(filters)]}}
        hits = self._search({"size": len(ids), "query": query, "_source": list(fields)})["hits"]["hits"]
        return [hit["_source"] for hit in hits]

    def _search(self, body: Mapping[str, Any]) -> Any:
        return self._client.call("POST", f"/{self._names.documents}/_search", body)


def _nested(query: Mapping[str, Any], *, best: bool = False) -> dict[str, Any]:
    """Score documents by their best chunk; `best` returns that chunk as an inner hit."""
    shown = {"inner_hits": {"size": 1, "_source": list(CHUNK)}} if best else {}
    return {"nested": {"path": "chunks", "score_mode": "max", "query": query, **shown}}


def _named(words: WeighedWords, scale: float = 1.0) -> list[dict[str, Any]]:
    """One clause a word, named after it, so that `matched_queries` of a hit lists its words."""
    return [
        {"constant_score": {"filter": _has(word), "boost": share * scale, "_name": word}}
        for word, share in words.shares.items()
    ]


def _has(word: str) -> dict[str, Any]:
    """Chunks that have a word in its language; the store's own field has the texts of all."""
    language, plain = unmarked(word)
    has = {"term": {f"chunks.{text_field(language)}": plain}}
    return {"bool": {"filter": [has], "must_not": [{"exists": {"field": LANGUAGE}}]}} if language == OWN else has


def _count(chunks: Mapping[str, Any], most: int = 0) -> dict[str, Any]:
    """A request for the number of documents with such a chunk, counted to `most` (0: to the end)."""
    return {"size": 0, "track_total_hits": most or True, "query": _nested(chunks)}


def _cosine(vector: Sequence[float]) -> dict[str, Any]:
    """The k-NN plugin's own script: the cosine of a chunk's vector and this one, as a score from 0 to 1."""
    params = {"field": "chunks.embedding", "query_value": vector, "space_type": "cosinesimil"}
    return {"lang": "knn", "source": "knn_score", "params": params}


def _hit(hit: Mapping[str, Any], vector: Vector, words: WeighedWords) -> Hit:
    row, best = hit["_source"], hit["inner_hits"]["chunks"]["hits"]["hits"][0]
    chunk = best["_source"]
    embedding = np.asarray(chunk["embedding"])
    return Hit(
        row["document_id"], row["table_name"], exact_json.loads(row["key"]), chunk["chunk_id"], chunk["chunk_index"],
        chunk["chunk_text"], exact_json.loads(row["metadata"]),
        float(embedding @ vector / (np.linalg.norm(embedding) * np.linalg.norm(vector))),
        words.coverage(best.get("matched_queries", ())), version_of(row["sequence"]),
    )  # fmt: skip

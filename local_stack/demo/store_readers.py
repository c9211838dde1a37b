"""Reads vector stores by their own clients, without the sinks and the retrieval: for the demo, tests and benchmarks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
from opensearchpy import OpenSearch
from psycopg import sql
from pymongo import MongoClient

from sinks import SinkConfig
from sinks.documentdb.config import DocumentDBConfig
from sinks.documentdb.schema import Names
from sinks.opensearch.config import OpenSearchConfig
from sinks.pgvector.config import PgvectorConfig
from transforms.context import key_text
from transforms.documents.planning import document_id

_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Seen:
    """A document as a reader sees it."""

    metadata: Mapping[str, Any]
    text: str
    """Its chunks, one after the other."""


class Reader(Protocol):
    """One store. Not for use by several threads at once."""

    def seen(self, document_ids: Sequence[str]) -> dict[str, Seen]:
        """Those of the documents that are searchable now, at most 10,000."""

    def count(self) -> int:
        """The number of searchable documents; 0 where there is no store yet."""

    def close(self) -> None:
        """Close the connection."""


def row_id(table: str, number: int) -> str:
    """The document id of a row whose key is the one column `id`."""
    return document_id(table, key_text(["id"], {"id": number}) or "")


def open_reader(config: SinkConfig) -> Reader:
    """Open a store; an outage raises its client's own error."""
    match config:
        case OpenSearchConfig():
            return _OpenSearchReader(config)
        case DocumentDBConfig():
            return _DocumentDBReader(config)
        case _:
            return _PgvectorReader(config)


class _PgvectorReader:
    def __init__(self, config: PgvectorConfig) -> None:
        self._connection = psycopg.connect(config.dsn.get_secret_value(), autocommit=True)
        self._table = config.table
        self._select = sql.SQL(
            "SELECT document_id, metadata, chunk_text FROM {} WHERE document_id = ANY(%s) ORDER BY chunk_index"
        ).format(sql.Identifier(config.table))
        self._count = sql.SQL("SELECT count(DISTINCT document_id) FROM {}").format(sql.Identifier(config.table))

    def seen(self, document_ids: Sequence[str]) -> dict[str, Seen]:
        documents: dict[str, Seen] = {}
        for name, metadata, text in self._connection.execute(self._select, (list(document_ids),)):
            documents[name] = Seen(metadata, documents[name].text + text if name in documents else text)
        return documents

    def count(self) -> int:
        if self._connection.execute("SELECT to_regclass(%s)", (self._table,)).fetchone() == (None,):
            return 0
        return int((self._connection.execute(self._count).fetchone() or (0,))[0])

    def close(self) -> None:
        self._connection.close()


class _OpenSearchReader:
    def __init__(self, config: OpenSearchConfig) -> None:
        self._client = OpenSearch(config.url, timeout=10, max_retries=0)
        self._index = config.index

    def seen(self, document_ids: Sequence[str]) -> dict[str, Seen]:
        wanted = {"terms": {"document_id": list(document_ids)}}
        body = {
            "size": _MOST, "query": _shown(wanted), "_source": ["metadata", "chunks.chunk_text", "chunks.chunk_index"]
        }  # fmt: skip
        hits = self._client.search(index=self._index, body=body)["hits"]["hits"]
        return {hit["_id"]: _seen(hit["_source"]) for hit in hits}

    def count(self) -> int:
        body = {"size": 0, "track_total_hits": True, "query": _shown()}
        response = self._client.search(index=self._index, body=body, ignore_unavailable=True)
        return int(response["hits"]["total"]["value"])

    def close(self) -> None:
        self._client.close()


class _DocumentDBReader:
    def __init__(self, config: DocumentDBConfig) -> None:
        self._client: MongoClient[dict[str, Any]] = MongoClient(
            config.uri.get_secret_value(), serverSelectionTimeoutMS=10_000, socketTimeoutMS=10_000
        )
        self._documents = self._client[config.database][Names(config.collection).documents]

    def seen(self, document_ids: Sequence[str]) -> dict[str, Seen]:
        wanted = {"_id": {"$in": list(document_ids)}, "live": True, "chunk_count": {"$gt": 0}}
        shown = {"metadata": 1, "chunks.chunk_text": 1, "chunks.chunk_index": 1}
        return {document["_id"]: _seen(document) for document in self._documents.find(wanted, shown)}

    def count(self) -> int:
        return self._documents.count_documents({"live": True, "chunk_count": {"$gt": 0}})

    def close(self) -> None:
        self._client.close()


def _shown(*conditions: Mapping[str, Any]) -> dict[str, Any]:
    return {"bool": {"filter": [{"term": {"live": True}}, {"range": {"chunk_count": {"gt": 0}}}, *conditions]}}


def _seen(document: Mapping[str, Any]) -> Seen:
    """Read a document that contains its chunks, and its metadata as JSON."""
    chunks = sorted(document["chunks"], key=lambda chunk: chunk["chunk_index"])
    return Seen(json.loads(document["metadata"]), "".join(chunk["chunk_text"] for chunk in chunks))

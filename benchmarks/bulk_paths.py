"""Each store's own bulk path for the rows that a sink writes: the baseline of `benchmarks.stores_write`.

Rows are made beforehand, as the store keeps them; what is timed is the client's encoding of them and the server's work, in
one piece and without a guard: COPY in binary, `_bulk` of whole documents, `insert_many`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import psycopg
from pgvector.psycopg import register_vector
from psycopg import sql

from sinks.documentdb.client import DocumentDBClient
from sinks.documentdb.config import DocumentDBConfig
from sinks.documentdb.rows import encoded, fields_of
from sinks.documentdb.schema import Names as DocumentDBNames
from sinks.opensearch.client import Action, OpenSearchClient
from sinks.opensearch.config import OpenSearchConfig
from sinks.opensearch.rows import change, replaced
from sinks.opensearch.schema import Names as OpenSearchNames
from sinks.opensearch.schema import mappings
from sinks.pgvector.config import PgvectorConfig
from sinks.pgvector.rows import document_row
from sinks.pgvector.schema import Names

if TYPE_CHECKING:
    import numpy as np

    from schemas.documents import DocumentWrite
    from sinks import SinkConfig

type Vectors = Mapping[str, np.ndarray]

_INSERT_BATCH = 1000


def bulk_path(config: SinkConfig, writes: Sequence[DocumentWrite], vectors: Vectors) -> Callable[[], float]:
    """Make the rows; returns a function that writes them into an empty store and returns its seconds."""
    match config:
        case PgvectorConfig():
            return _copy(config, writes, vectors)
        case OpenSearchConfig():
            return _bulk(config, writes, vectors)
        case DocumentDBConfig():
            return _insert_many(config, writes, vectors)


def without_vector_index(config: SinkConfig, dimensions: int) -> None:
    """Drop a new store's vector index."""
    match config:
        case PgvectorConfig():
            with psycopg.connect(config.dsn.get_secret_value()) as connection:
                connection.execute(sql.SQL("DROP INDEX {}").format(Names(config.table)["vectors_by_distance"]))
        case OpenSearchConfig():
            client, names = OpenSearchClient(config), OpenSearchNames(config.index)
            name = names.documents
            body = mappings(config, names, dimensions)[name]
            body["settings"]["index"]["knn"] = False
            del body["mappings"]["properties"]["chunks"]["properties"]["embedding"]["method"]
            for method, path, payload in (("DELETE", f"/_index_template/{name}", None), ("DELETE", f"/{name}", None),
                                       ("PUT", f"/{name}", body)):  # fmt: skip
                client.call(method, path, payload)
            client.close()
        case DocumentDBConfig():
            client_of = DocumentDBClient(config)
            client_of.command({"dropIndexes": DocumentDBNames(config.collection).vectors, "index": "embedding"})
            client_of.close()


def _copy(config: PgvectorConfig, writes: Sequence[DocumentWrite], vectors: Vectors) -> Callable[[], float]:
    names = Names(config.table)
    documents = [document_row(write) for write in writes]
    columns = ("document_id", "table", "key", "sequence", "live", "metadata", "state", "texts", "recipe", "pending")
    types = ("text", "text", "jsonb", "text", "bool", "jsonb", "text", "text", "text", "text[]")
    rows: dict[str, tuple[str, Sequence[str], list[Any]]] = {
        "documents": (
            ", ".join(columns).replace("table", "table_name") + ", revision", (*types, "int8"),
            [(*(_jsonb(row[name]) if kind == "jsonb" else row[name]
                for name, kind in zip(columns, types, strict=True)), 1) for row in documents]),
        "vectors": ("content_hash, embedding", ("text", "vector"), list(vectors.items())),
        "chunks": (
            "chunk_id, document_id, chunk_index, content_hash, chunk_text", ("text", "text", "int4", "text", "text"),
            [(c.chunk_id, w.document_id, c.chunk_index, c.content_hash, c.chunk_text) for w in writes for c in w.added]),
    }  # fmt: skip

    def run() -> float:
        with psycopg.connect(config.dsn.get_secret_value()) as connection:
            register_vector(connection)
            began = time.perf_counter()
            for part, (named, kinds, values) in rows.items():
                statement = names.compose(f"COPY {{{part}}} ({named}) FROM STDIN (FORMAT binary)")
                with connection.cursor().copy(statement) as copy:
                    copy.set_types(kinds)
                    for row in values:
                        copy.write_row(row)
            connection.commit()
            return time.perf_counter() - began

    return run


def _jsonb(text: str) -> Any:
    from psycopg.types.json import Jsonb

    return Jsonb(text, dumps=str)


def _bulk(config: OpenSearchConfig, writes: Sequence[DocumentWrite], vectors: Vectors) -> Callable[[], float]:
    index, now = OpenSearchNames(config.index).documents, time.time_ns() // 1_000_000
    documents = {write.document_id: replaced(None, change(write, vectors), now) for write in writes}
    actions = [Action("index", {"_index": index, "_id": name}, document) for name, document in documents.items()]

    def run() -> float:
        client = OpenSearchClient(config)
        client.call("GET", "/")
        began = time.perf_counter()
        client.bulk(actions, refresh=True)
        took = time.perf_counter() - began
        client.close()
        return took

    return run


def _insert_many(config: DocumentDBConfig, writes: Sequence[DocumentWrite], vectors: Vectors) -> Callable[[], float]:
    from pymongo import MongoClient

    names, now = DocumentDBNames(config.collection), time.time_ns() // 1_000_000
    rows: dict[str, list[dict[str, Any]]] = {
        names.vectors: [{"_id": name, "embedding": encoded(v), "kept_at": now} for name, v in vectors.items()],
        names.documents: [{"_id": w.document_id, **fields_of(w, config.language, "bulk", now)} for w in writes],
    }

    def run() -> float:
        with MongoClient[dict[str, Any]](config.uri.get_secret_value(), retryWrites=False) as client:
            database = client[config.database]
            client.admin.command("ping")
            began = time.perf_counter()
            for collection, documents in rows.items():
                for some in itertools.batched(documents, _INSERT_BATCH):
                    database[collection].insert_many(some, ordered=False)
            return time.perf_counter() - began

    return run

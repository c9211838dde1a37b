"""Every store, for the suites that hold all of them to one contract. A new store is one line in `STORES`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local_stack.servers.opensearch import OpenSearch
from local_stack.servers.postgres import VectorStore
from local_stack.standins.documentdb.server import DocumentDB
from sinks.protocol import Sink
from tests.stores import Store, documentdb_store, opensearch_store, pgvector_store

STORES = ["pgvector", "opensearch_by_script", "opensearch_by_seq_no", "in_documentdb"]


@pytest.fixture
def pgvector(vectors: VectorStore, vectors_dsn: str) -> Store:
    return pgvector_store(vectors, vectors_dsn)


@pytest.fixture
def opensearch_by_script(opensearch: OpenSearch, search_index: str) -> Store:
    return opensearch_store(opensearch, search_index, "script")


@pytest.fixture
def opensearch_by_seq_no(opensearch: OpenSearch, search_index: str) -> Store:
    return opensearch_store(opensearch, search_index, "seq_no")


@pytest.fixture
def in_documentdb(documentdb: DocumentDB, document_database: str) -> Store:
    return documentdb_store(documentdb, document_database)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    made = request.getfixturevalue(request.param)
    assert isinstance(made, Store)
    yield made
    made.close()


@pytest.fixture
def sink(store: Store) -> Sink:
    opened = store.open()
    opened.prepare()
    return opened

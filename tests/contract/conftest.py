"""Every store and every memory, for the suites that hold all of them to one contract: lines of `STORES` and `MEMORIES`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local_stack.faults.aws import AwsFaultProxy
from local_stack.servers.aws import Ministack
from local_stack.servers.memorydb import MemoryDB
from local_stack.servers.opensearch import OpenSearch
from local_stack.servers.postgres import VectorStore
from local_stack.standins.documentdb.server import DocumentDB
from sinks.protocol import Sink
from tests.memories import Memory, documentdb_memory, dynamodb_memory, memorydb_memory
from tests.servers import unique
from tests.stores import Store, documentdb_store, opensearch_store, pgvector_store

MEMORIES = ["dynamodb_as_memory", "documentdb_as_memory", "memorydb_as_memory"]
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


@pytest.fixture
def dynamodb_as_memory(aws: Ministack) -> Iterator[Memory]:
    proxy = AwsFaultProxy(aws.url).start()
    yield dynamodb_memory(aws, proxy, unique("memory"))
    proxy.stop()


@pytest.fixture
def documentdb_as_memory(documentdb: DocumentDB, document_database: str) -> Memory:
    return documentdb_memory(documentdb, document_database)


@pytest.fixture
def memorydb_as_memory(memorydb: MemoryDB) -> Memory:
    return memorydb_memory(memorydb, unique("memory"))


@pytest.fixture(params=MEMORIES)
def memory(request: pytest.FixtureRequest) -> Iterator[Memory]:
    made = request.getfixturevalue(request.param)
    assert isinstance(made, Memory)
    made.store().check()
    yield made
    made.close()

"""Several stores written at once: one question to the model for all, and one that stays away is missed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from embeddings.protocol import Embedding
from indexing.indexer import Indexer
from local_stack.faults.tcp import FaultProxy
from local_stack.servers.opensearch import OpenSearch
from local_stack.servers.postgres import VectorStore
from local_stack.standins.documentdb.server import DocumentDB
from schemas.errors import UnavailableError
from sinks.pgvector.config import PgvectorConfig
from sinks.pgvector.writer import PgvectorSink
from tests.feeding import CONTEXT, DIMENSIONS, SPECS, CountingEmbedder
from tests.history import ModelTable, as_record, random_history
from tests.killed_writer import long_history
from tests.stores import Store, documentdb_store, drift, opensearch_store, pgvector_store


class Pair:
    """Two stores, the second behind a proxy, and an indexer of both."""

    def __init__(self, dsn: str, proxy: FaultProxy) -> None:
        self.dsn, self.proxy, self.embedder = dsn, proxy, CountingEmbedder()
        behind = make_conninfo(dsn, port=proxy.port)
        self.sinks = [
            PgvectorSink(
                PgvectorConfig(type="pgvector", name=name, dsn=SecretStr(at), table=name), "model=test", DIMENSIONS
            )
            for name, at in (("steady", dsn), ("shaky", behind))
        ]
        for sink in self.sinks:
            sink.prepare()
        self.closing = ExitStack()
        self.indexer = self.indexer_of()

    def indexer_of(self, **deadlines: float) -> Indexer:
        made = Indexer(CONTEXT, SPECS, self.sinks, self.embedder, texts_at_once=8, deadlines=deadlines)
        self.closing.callback(made.close)
        return made

    def shown(self, name: str) -> list[tuple[str, str, str]]:
        with psycopg.connect(self.dsn) as connection:
            query = f"SELECT key::text, chunk_text, embedding::text FROM {name} ORDER BY 1, chunk_index"
            return connection.execute(query.encode()).fetchall()


@pytest.fixture
def pair(vectors: VectorStore, vectors_dsn: str, new_proxy: Callable[[int], FaultProxy]) -> Iterator[Pair]:
    pair_of_stores = Pair(vectors_dsn, new_proxy(vectors.port))
    with pair_of_stores.closing:
        yield pair_of_stores


def test_a_text_is_asked_for_once_for_all_stores_and_refused_once(pair: Pair) -> None:
    table = random_history(3, 60)
    for number in range(100, 130):
        table.insert(number, f"row {number}")
    table.insert(200, "refused")
    result = pair.indexer.index([as_record(change) for change in table.changes])
    assert result.missed == set()
    assert pair.shown("steady") == pair.shown("shaky") != []
    assert len(pair.embedder.texts) == len(set(pair.embedder.texts))
    assert [reject.condition for _, reject in result.rejected] == ["MODEL_REFUSED_TEXT"]


def test_an_unavailable_store_is_missed_and_takes_vectors_from_its_peers_later(pair: Pair) -> None:
    table = ModelTable()
    pair.indexer = pair.indexer_of(steady=0.5, shaky=0.5)
    for number, body in enumerate(["one", "two"], 1):
        table.insert(number, body)
        if number == 2:
            pair.proxy.refuse()
        missed = pair.indexer.index([as_record(table.changes[-1])]).missed
        assert missed == ({"shaky"} if number == 2 else set())
    table.update_body(2, "two, newer")
    patient = pair.indexer_of(steady=3600, shaky=3600)  # a store that is left out is not waited for
    assert patient.index([as_record(table.changes[2])], without={"shaky"}).missed == set()
    pair.proxy.heal()
    pair.indexer = pair.indexer_of()  # another process: it remembers no answer
    table.insert(3, "two, newer")
    records = [as_record(change) for change in table.changes]
    assert pair.indexer.index(records, use_peers={"shaky"}).missed == set()
    assert pair.embedder.texts == ["body one", "body two", "body two, newer"]
    assert pair.shown("steady") == pair.shown("shaky")
    assert len(pair.shown("shaky")) == 3


def test_nothing_is_missed_for_the_model_nor_for_all_stores_at_once(pair: Pair) -> None:
    table = ModelTable()
    table.insert(1, "one")
    records = [as_record(table.changes[0])]
    failing = threading.Event()

    class Away(CountingEmbedder):
        def embed_documents(self, texts: Sequence[str]) -> list[Embedding]:
            if failing.is_set():
                raise UnavailableError("the model is away")
            return super().embed_documents(texts)

    pair.embedder = Away()
    failing.set()
    with pytest.raises(UnavailableError, match="the model is away"):
        pair.indexer_of(steady=0.5, shaky=0.5).index(records)
    failing.clear()
    pair.proxy.refuse()
    with pytest.raises(UnavailableError, match="shaky"):
        pair.indexer_of().index(records)
    with pytest.raises(UnavailableError, match="shaky"):
        pair.indexer_of(steady=0.5, shaky=0.5).index(records, without={"steady"})
    only = pair.indexer_of(steady=0.5, shaky=0.5).index(records, without={"steady", "shaky"})
    assert only.missed == {"shaky"}, "though all were left out, one that answers is written"
    assert len(pair.shown("steady")) == 1


@pytest.fixture
def kinds(
    vectors: VectorStore, vectors_dsn: str, opensearch: OpenSearch, search_index: str, documentdb: DocumentDB,
    document_database: str,
) -> Iterator[dict[str, Store]]:  # fmt: skip
    stores = {
        "pgvector": pgvector_store(vectors, vectors_dsn),
        "opensearch": opensearch_store(opensearch, search_index, "script"),
        "documentdb": documentdb_store(documentdb, document_database),
    }
    yield stores
    for store in stores.values():
        store.close()


@pytest.mark.parametrize("frozen", ["pgvector", "opensearch", "documentdb"])
def test_a_silent_server_is_missed_and_goes_on_once_it_answers(kinds: dict[str, Store], frozen: str) -> None:
    patience = {"deadline": 1.0, "connect_timeout_seconds": 2} if frozen == "pgvector" else {"timeout_seconds": 1.0}
    sinks = [
        store.open(config=store.config.model_copy(update=patience if name == frozen else {}))
        for name, store in kinds.items()
    ]
    for sink in sinks:
        sink.prepare()
    embedder, table = CountingEmbedder(), long_history(3, 60)
    deadlines = dict.fromkeys((sink.name for sink in sinks), 1.0)
    indexer = Indexer(CONTEXT, SPECS, sinks, embedder, texts_at_once=8, deadlines=deadlines)
    records = [as_record(change) for change in table.changes]
    assert indexer.index(records[:20]).missed == set()
    server = kinds[frozen].server
    server.pause()
    try:
        (missed,) = indexer.index(records[20:30]).missed
        assert missed == kinds[frozen].config.name
        for name in kinds.keys() - {frozen}:
            assert drift(kinds[name], table.changes[:30]) == []
    finally:
        server.resume()
    with closing(indexer):
        assert indexer.index(records[20:], use_peers={missed}).missed == set()
    for store in kinds.values():
        assert drift(store, table.changes) == []
    assert len(embedder.texts) == len(set(embedder.texts))

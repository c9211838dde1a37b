"""Several stores written at once: one question to the model for all, and one that is away is set aside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from embeddings.protocol import Embedding
from local_stack.documentdb import DocumentDB
from local_stack.faults import FaultProxy
from local_stack.opensearch import OpenSearch
from local_stack.postgres import VectorStore
from schemas.errors import UnavailableError
from schemas.records import Record
from sinks.indexing import Indexer
from sinks.pgvector import PgvectorSink
from sinks.pgvector_config import PgvectorConfig
from sinks.several import Phase, SettingAside, Several
from tests.documentdb_store import eventually
from tests.dying_writer import long_history
from tests.feeding import CONTEXT, DIMENSIONS, RECIPES, CountingEmbedder
from tests.history import TABLE, ModelTable, as_record, random_history
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
        self.phases: dict[str, Phase] = {}
        self.aside = SettingAside({"steady": 0.5, "shaky": 0.5}, lambda: self.phases)
        self.indexer = self.indexer_of(self.aside)

    def indexer_of(self, aside: SettingAside) -> Indexer:
        return Indexer(CONTEXT, RECIPES, Several(self.sinks, aside), self.embedder, texts_at_once=8)

    def shown(self, name: str) -> list[tuple[str, str, str]]:
        with psycopg.connect(self.dsn) as connection:
            query = f"SELECT key::text, chunk_text, embedding::text FROM {name} ORDER BY 1, chunk_index"
            return connection.execute(query.encode()).fetchall()


@pytest.fixture
def pair(vectors: VectorStore, vectors_dsn: str, new_proxy: Callable[[int], FaultProxy]) -> Iterator[Pair]:
    found = Pair(vectors_dsn, new_proxy(vectors.port))
    with closing(found.sinks[0]), closing(found.sinks[1]):
        yield found


def test_a_text_is_asked_for_once_for_all_stores_and_refused_once(pair: Pair) -> None:
    table = random_history(3, 60)
    for number in range(100, 130):
        table.insert(number, f"row {number}")
    table.insert(200, "refused")
    result = pair.indexer.index([as_record(change) for change in table.changes])
    assert result.missed == {}
    assert pair.shown("steady") == pair.shown("shaky") != []
    assert len(pair.embedder.texts) == len(set(pair.embedder.texts))
    assert [reject.condition for _, reject in result.rejected] == ["MODEL_REFUSED_TEXT"]


def test_one_that_is_away_is_missed_and_what_it_lacks_is_borrowed_when_it_returns(pair: Pair) -> None:
    table = ModelTable()
    table.insert(1, "one")
    assert pair.indexer.index([as_record(table.changes[0])]).missed == {}
    pair.proxy.refuse()
    table.insert(2, "two")
    away = pair.indexer.index([as_record(table.changes[1])])
    assert {store: missed.tried for store, missed in away.missed.items()} == {"shaky": True}
    assert away.positions == {("t", "0"): ("2", "2")}
    began = time.monotonic()
    assert pair.indexer.index([as_record(table.changes[1])]).missed == away.missed
    assert time.monotonic() - began < 0.4, "nobody was told yet, and still it is not waited for again"
    pair.phases = {"shaky": "aside"}
    table.update_body(2, "two, newer")
    skipped = pair.indexer.index([as_record(table.changes[2])])
    assert {store: missed.tried for store, missed in skipped.missed.items()} == {"shaky": False}
    pair.proxy.heal()
    pair.phases = {"shaky": "returning"}
    table.insert(3, "two, newer")
    assert pair.indexer.index([as_record(table.changes[3])]).missed == {}
    assert len(pair.shown("shaky")) == 2
    assert pair.embedder.texts == ["body one", "body two", "body two, newer"]
    pair.phases = {}
    assert pair.indexer.index([as_record(change) for change in table.changes]).missed == {}
    assert pair.shown("steady") == pair.shown("shaky")


def test_nothing_is_set_aside_for_the_model_for_all_stores_at_once_or_where_nobody_remembers(pair: Pair) -> None:
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
        pair.indexer_of(pair.aside).index(records)
    failing.clear()
    pair.proxy.refuse()
    with pytest.raises(UnavailableError, match="shaky"):
        pair.indexer_of(SettingAside()).index(records)
    only = Indexer(CONTEXT, RECIPES, Several(pair.sinks[1:], pair.aside), pair.embedder, texts_at_once=8)
    with pytest.raises(UnavailableError, match="shaky"):
        only.index(records)


def test_a_slow_store_gets_all_of_it_and_the_other_is_not_kept_waiting(pair: Pair) -> None:
    table = random_history(5, 12)
    for number in range(100, 106):
        table.insert(number, f"row {number}")
    pair.proxy.delay(0.03)
    slower = list[bool]()

    def has(store: str, text: str) -> bool:
        return any(shown == text for _, shown, _ in pair.shown(store))

    def groups() -> Iterator[list[Record]]:
        yield [as_record(change) for change in table.changes[:-6]]
        for change in table.changes[-6:]:
            yield [as_record(change)]
            assert eventually(partial(has, "steady", str(change.columns["body"])))
            slower.append(len(pair.shown("shaky")) < len(pair.shown("steady")))

    result = pair.indexer.index_groups(groups())
    assert all(slower), "it had to wait for none"
    assert pair.shown("steady") == pair.shown("shaky")
    assert len(pair.embedder.texts) == len(set(pair.embedder.texts))
    assert result.changes == {TABLE: len(table.changes)}
    assert result.counts["records"] == len(table.changes)
    assert result.missed == {}


def test_what_a_store_missed_covers_the_groups_it_missed_and_no_other(pair: Pair) -> None:
    table = ModelTable()
    for number in range(1, 6):
        table.insert(number, f"row {number}")

    def groups() -> Iterator[list[Record]]:
        yield [as_record(table.changes[0])]
        assert eventually(lambda: len(pair.shown("shaky")) == 1)
        pair.proxy.refuse()
        for change in table.changes[1:4]:
            yield [as_record(change)]
            time.sleep(0.3)
        assert eventually(lambda: len(pair.shown("steady")) == 4)

    result = pair.indexer.index_groups(groups())
    assert {store: missed.tried for store, missed in result.missed.items()} == {"shaky": True}
    assert result.positions == {("t", "0"): ("2", "4")}
    assert (len(pair.shown("steady")), len(pair.shown("shaky"))) == (4, 1)


def test_though_all_are_set_aside_one_that_answers_is_written(pair: Pair) -> None:
    pair.phases = {"steady": "aside", "shaky": "aside"}
    pair.proxy.refuse()
    table = ModelTable()
    table.insert(1, "one")
    result = pair.indexer.index([as_record(table.changes[0])])
    assert {store: missed.tried for store, missed in result.missed.items()} == {"shaky": True}
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
def test_a_server_that_accepts_and_never_answers_is_left_to_itself_and_comes_back(
    kinds: dict[str, Store], frozen: str
) -> None:
    sinks = [store.open() for store in kinds.values()]
    for sink in sinks:
        sink.prepare()
    phases: dict[str, Phase] = {}
    several = Several(sinks, SettingAside(dict.fromkeys(kinds, 2.0), lambda: phases))
    embedder, table = CountingEmbedder(), long_history(3, 60)
    indexer = Indexer(CONTEXT, RECIPES, several, embedder, texts_at_once=8)

    def index(first: int, end: int) -> dict[str, bool]:
        result = indexer.index([as_record(change) for change in table.changes[first:end]])
        return {store: missed.tried for store, missed in result.missed.items()}

    assert index(0, 20) == {}
    server = kinds[frozen].server
    server.pause()
    try:
        began = time.monotonic()
        assert index(20, 30) == {frozen: True}
        assert 2 <= time.monotonic() - began < 20
        began = time.monotonic()
        assert index(30, 35) == {frozen: True}
        assert time.monotonic() - began < 2, "nobody was told yet, and still it is not waited for again"
        phases = {frozen: "aside"}
        assert index(35, 40) == {frozen: False}
        for name in kinds.keys() - {frozen}:
            assert drift(kinds[name], table.changes[:40]) == []
    finally:
        server.resume()
    phases = {frozen: "returning"}
    assert index(40, 50) == {}
    assert index(20, len(table.changes)) == {}
    for store, sink in zip(kinds.values(), several.sinks, strict=True):
        store.adopt(sink)
        assert drift(store, table.changes) == []
    assert len(embedder.texts) == len(set(embedder.texts))
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("store-")] == []

"""One store's side of the indexer, for as long as a process lives."""

from __future__ import annotations

import gc
import os
import socket
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import batched
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from indexing.indexer import Indexer
from indexing.shared_vectors import SharedEmbeddings
from indexing.store_writer import Shared, StoreWriter
from local_stack.faults.tcp import FaultProxy
from local_stack.servers.postgres import VectorStore
from schemas.errors import UnavailableError
from sinks.pgvector import connection as pgvector_connection
from sinks.pgvector.config import PgvectorConfig
from sinks.pgvector.writer import PgvectorSink
from tests.feeding import CONTEXT, DIMENSIONS, SPECS, CountingEmbedder
from tests.history import ModelTable, as_record, random_history
from tests.waiting import eventually

VANISHED = {"TCP_USER_TIMEOUT": 20_000, "TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Milliseconds, seconds, seconds, probes: a server that acknowledges nothing is given up after 20 seconds."""


class Stores:
    """Three stores in one database, the last behind a proxy, and one indexer of all."""

    names = ("one", "two", "shaky")

    def __init__(self, dsn: str, proxy: FaultProxy) -> None:
        self.dsn, self.proxy, self.embedder = dsn, proxy, CountingEmbedder()
        places = (dsn, dsn, make_conninfo(dsn, port=proxy.port))
        self.sinks = [
            PgvectorSink(
                PgvectorConfig(type="pgvector", name=name, dsn=SecretStr(at), table=name), "model=test", DIMENSIONS
            )
            for name, at in zip(self.names, places, strict=True)
        ]
        for sink in self.sinks:
            sink.prepare()
        self.indexer = Indexer(CONTEXT, SPECS, self.sinks, self.embedder, texts_at_once=8)
        self.writers = {name: self.indexer.writer(name) for name in self.names}

    def close(self) -> None:
        for sink in self.sinks:
            sink.close()
        for writer in self.writers.values():
            writer.close()

    def shown(self, name: str) -> list[tuple[str, str, str]]:
        with psycopg.connect(self.dsn) as connection:
            query = f"SELECT key::text, chunk_text, embedding::text FROM {name} ORDER BY 1, chunk_index"
            return connection.execute(query.encode()).fetchall()

    def sessions(self) -> int:
        """Connections of writers and peers."""
        with psycopg.connect(self.dsn) as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ragstream' AND datname = current_database()"
            row = connection.execute(query).fetchone()
        return int(row[0]) if row else 0


@pytest.fixture
def stores(vectors: VectorStore, vectors_dsn: str, new_proxy: Callable[[int], FaultProxy]) -> Iterator[Stores]:
    with closing(Stores(vectors_dsn, new_proxy(vectors.port))) as three_stores:
        yield three_stores


def test_stores_written_at_once_embed_and_report_each_text_once(stores: Stores) -> None:
    table = random_history(3, 60)
    for number in range(100, 130):
        table.insert(number, f"row {number}")
    table.insert(200, "refused")
    units = [stores.indexer.decode(map(as_record, some)) for some in batched(table.changes, 5)]
    with ThreadPoolExecutor(3) as pool:
        written = list(pool.map(lambda writer: [writer.write([unit]) for unit in units], stores.writers.values()))
    assert stores.shown("one") == stores.shown("two") == stores.shown("shaky") != []
    assert len(stores.embedder.texts) == len(set(stores.embedder.texts))
    every = [outcome for several in written for outcome in several]
    assert [reject.condition for outcome in every for _, reject in outcome.rejected] == ["MODEL_REFUSED_TEXT"]
    paid = [name for outcome in every for vectors in outcome.embedded.values() for name in vectors]
    assert len(paid) == len(set(paid)) == len(stores.embedder.texts) - 1


def test_a_store_that_fails_after_embedding_pays_for_no_text_again(
    stores: Stores,
) -> None:
    table = ModelTable()
    table.insert(1, "one")
    unit = stores.indexer.decode(map(as_record, table.changes))
    shared = Shared(
        SPECS, 8, lambda step: stores.proxy.refuse() if step == "write" else None, SharedEmbeddings(most_bytes=0)
    )
    writer = StoreWriter(shared, stores.writers["shaky"].sink, stores.writers["shaky"]._versions)
    with pytest.raises(UnavailableError, match="shaky"):
        writer.write([unit])
    assert stores.shown("shaky") == []
    stores.proxy.heal()
    healthy = StoreWriter(
        Shared(SPECS, 8, lambda _: None, SharedEmbeddings(most_bytes=0)), writer.sink, writer._versions
    )
    healthy.unreported = writer.unreported
    written = healthy.write([unit])
    assert [len(vectors) for vectors in written.embedded.values()] == [1]
    assert written.counts["texts embedded"] == 1
    assert stores.embedder.texts == ["body one"]
    assert len(stores.shown("shaky")) == 1
    again = healthy.write([unit])
    assert [again.counts["writes"], sum(map(len, again.embedded.values()))] == [0, 0]


def test_a_later_store_takes_peer_vectors_and_closes_the_peers(
    stores: Stores,
) -> None:
    table = ModelTable()
    for number in range(20):
        table.insert(number, f"row {number}")
    table.insert(20, "refused")
    unit = stores.indexer.decode(map(as_record, table.changes))
    stores.writers["one"].write([unit])
    stores.indexer._shared.embeddings.__init__()  # type: ignore[misc] # all is forgotten
    asked = len(stores.embedder.texts)
    before = stores.sessions()
    written = stores.writers["shaky"].write([unit], use_peers=True)
    assert stores.embedder.texts[asked:] == ["body refused"], "no store holds what has no vector"
    assert sum(map(len, written.embedded.values())) == 0
    assert stores.shown("shaky") == stores.shown("one") != []
    assert stores.sessions() > before + 1
    stores.writers["shaky"].write([])
    assert eventually(lambda: stores.sessions() == before + 1)


def test_a_peer_that_is_silent_gives_nothing_and_is_waited_for_once(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexing.peer_vectors.PATIENCE_SECONDS", 0.3)
    table = ModelTable()
    table.insert(1, "one")
    table.insert(2, "two")
    stores.proxy.stall()
    writer = stores.writers["one"]
    for change in table.changes:
        writer.write([stores.indexer.decode([as_record(change)])], use_peers=True)
    assert stores.embedder.texts == ["body one", "body two"]
    assert len(stores.shown("one")) == 2
    stuck = [thread.name for thread in threading.enumerate() if thread.name == "peer-shaky"]
    assert len(stuck) == 1
    stores.proxy.heal()


def test_what_an_indexer_keeps_is_bounded_however_many_texts_it_has_seen(stores: Stores) -> None:
    shared = stores.indexer._shared.embeddings
    shared._most_bytes = 100_000
    table, writer = ModelTable(), stores.writers["one"]
    for number in range(1_000):
        table.insert(number, f"row {number}")
    kept = list[int]()
    for some in batched(table.changes, 50):
        written = writer.write([stores.indexer.decode(map(as_record, some))])
        assert sum(map(len, written.embedded.values())) == 50
        assert shared.bytes <= 100_000
        kept.append(_reachable(writer, stores.indexer))
    assert len(stores.embedder.texts) == 1_000
    stores.embedder.texts.clear()
    assert max(kept[5:]) <= min(kept[5:]) + 20, kept


def _reachable(*roots: object) -> int:
    """How many containers and arrays of ours hang on some objects."""
    seen: dict[int, object] = {}
    left: list[object] = list(roots)
    while left:
        container = left.pop()
        if id(container) in seen or isinstance(
            container, type | types.ModuleType | types.FunctionType | CountingEmbedder
        ):
            continue
        seen[id(container)] = container
        left += gc.get_referents(container)
    return len(seen)


def test_a_server_or_a_client_that_vanishes_is_given_up_within_minutes(stores: Stores) -> None:
    sink = stores.writers["one"].sink
    assert isinstance(sink, PgvectorSink)
    connection = sink._open()
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        options = {name: line.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in VANISHED}
        assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert options == VANISHED
    kept = [
        connection.execute(f"SHOW tcp_keepalives_{name}".encode()).fetchone() for name in ("idle", "interval", "count")
    ]
    assert kept == [("5",), ("5",), ("3",)]
    assert connection.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("5min",)


def test_a_writer_frozen_during_a_write_lets_go_of_its_rows(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    table, frozen, thawed = ModelTable(), threading.Event(), threading.Event()
    table.insert(1, "one")
    unit, write_chunks = stores.indexer.decode(map(as_record, table.changes)), PgvectorSink._write_chunks

    def stand_still(sink: PgvectorSink, *writes: Any) -> None:
        if not frozen.is_set():
            frozen.set()
            assert thawed.wait(60)
        write_chunks(sink, *writes)

    monkeypatch.setattr(PgvectorSink, "_write_chunks", stand_still)
    other = stores.indexer.writer("one")
    with ThreadPoolExecutor(1) as pool, closing(other):
        with monkeypatch.context() as patience:
            patience.setattr(pgvector_connection, "MOST_SECONDS", 1)
            first = pool.submit(stores.writers["one"].write, [unit])
            assert frozen.wait(10)
        try:
            assert other.write([unit]).counts["writes"] == 1
        finally:
            thawed.set()
        with pytest.raises(UnavailableError):
            first.result(10)
    assert stores.writers["one"].write([unit]).counts["writes"] == 0
    assert len(stores.shown("one")) == 1


def test_a_server_that_was_frozen_is_written_on_once_it_is_thawed(stores: Stores) -> None:
    table, writer = ModelTable(), stores.writers["shaky"]
    table.insert(1, "one")
    table.insert(2, "two")
    writer.write([stores.indexer.decode(map(as_record, table.changes[:1]))])
    stores.proxy.stall()
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(writer.write, [stores.indexer.decode(map(as_record, table.changes[1:]))])
        with pytest.raises(TimeoutError):
            writing.result(0.5)
        stores.proxy.heal()
        assert writing.result(10).counts["writes"] == 1
    assert len(stores.shown("shaky")) == 2

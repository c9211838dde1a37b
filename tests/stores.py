"""Every vector store under test: how to open it, how a reader sees it, and how its server is made to fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from local_stack.faults.aws import AwsFaultProxy
from local_stack.faults.tcp import FaultProxy
from local_stack.servers.opensearch import OpenSearch
from local_stack.servers.postgres import VectorStore
from local_stack.service import Service
from local_stack.standins.documentdb.server import DocumentDB
from schemas.changes import Change
from schemas.documents import DocumentWrite
from sinks import SinkConfig, open_sink
from sinks.digests import Finding, classify_drift, expected_of, vector_hash
from sinks.documentdb.client import DocumentDBClient
from sinks.documentdb.meta import Meta as DocumentDBMeta
from sinks.documentdb.schema import Names as DocumentDBNames
from sinks.documentdb.schema import visible as visible_in_documentdb
from sinks.opensearch.client import OpenSearchClient
from sinks.opensearch.config import OpenSearchConfig
from sinks.opensearch.meta import Meta
from sinks.opensearch.schema import Names, visible
from sinks.pgvector.config import PgvectorConfig
from sinks.protocol import Sink
from tests.documentdb_store import config_of, through
from tests.feeding import DIMENSIONS, SPECS, Contents, vector_of
from tests.history import TABLE, folded
from transforms.documents.planning import digest, plan
from transforms.values import exact_json

REFUSED = "body that a store refuses"

type Fault = Callable[[], AbstractContextManager[None]]


@dataclass
class Store:
    """A store under test."""

    server: Service
    config: SinkConfig
    at: Callable[[int], SinkConfig]
    """The same store by another port, whose client does not wait long."""
    contents: Callable[[], Contents]
    faults: Mapping[str, Fault]
    """What only this kind of store answers, while the context is open."""
    refusing: Callable[[], AbstractContextManager[str]]
    """While it is open, the store refuses a document whose text is REFUSED and whose column `a` is what it gives."""
    opened: list[Sink] = field(default_factory=list)

    def open(
        self, fingerprint: str = "model=test", dimensions: int = DIMENSIONS, config: SinkConfig | None = None
    ) -> Sink:
        """Open the store as one more writer; it is closed with the test."""
        return self.adopt(open_sink(config or self.config, fingerprint, dimensions))

    def adopt(self, sink: Sink) -> Sink:
        """Close a sink that came another way with the test."""
        self.opened.append(sink)
        return sink

    def close(self) -> None:
        """Close every writer."""
        for sink in self.opened:
            sink.close()


def _contents_of_pgvector(dsn: str) -> Contents:
    contents_by_key: Contents = {}
    with psycopg.connect(dsn) as connection:
        query = (
            "SELECT key, metadata, chunk_index, chunk_text, embedding::text FROM kb ORDER BY document_id, chunk_index"
        )
        for key, metadata, index, text, vector in connection.execute(query):
            _, chunks = contents_by_key.setdefault(exact_json.dumps(key), (metadata, []))
            chunks.append((index, text, [float(x) for x in vector[1:-1].split(",")]))
    return contents_by_key


def pgvector_store(server: VectorStore, dsn: str) -> Store:
    config = PgvectorConfig(type="pgvector", dsn=SecretStr(dsn), table="kb")
    database = sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))

    def run(*statements: str) -> None:
        with psycopg.connect(server.dsn("postgres"), autocommit=True) as admin:
            for statement in statements:
                admin.execute(sql.SQL(statement).format(database=database))

    ended = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'ragstream'"

    @contextmanager
    def set_to(name: str, value: str) -> Iterator[None]:
        run(f"ALTER DATABASE {{database}} SET {name} = '{value}'", ended)
        try:
            yield
        finally:
            run(f"ALTER DATABASE {{database}} RESET {name}", ended)

    @contextmanager
    def failing(statement: str) -> Iterator[None]:
        function = f"CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {statement}; RETURN NEW; END$$"
        trigger = (
            "CREATE TRIGGER fails BEFORE INSERT OR UPDATE ON kb_g1_documents FOR EACH ROW EXECUTE FUNCTION fails()"
        )
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(function.encode())
            admin.execute(trigger)
            try:
                yield
            finally:
                admin.execute("DROP FUNCTION fails CASCADE")

    @contextmanager
    def out_of_time() -> Iterator[None]:
        with failing("PERFORM pg_sleep(10)"), set_to("statement_timeout", "20ms"):
            yield

    @contextmanager
    def ending_sessions() -> Iterator[None]:
        with repeating(0.02, lambda: run(ended)):
            yield

    faults: dict[str, Fault] = {
        "read-only": partial(set_to, "default_transaction_read_only", "on"),
        "out of time": out_of_time,
        "full disk": partial(failing, "RAISE '' USING ERRCODE = '53100'"),
        "out of memory": partial(failing, "RAISE '' USING ERRCODE = '53200'"),
        "sessions ended": ending_sessions,
    }

    def at(port: int) -> SinkConfig:
        return config.model_copy(update={"dsn": SecretStr(make_conninfo(dsn, port=port))})

    @contextmanager
    def refusing() -> Iterator[str]:
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(
                "ALTER TABLE kb_g1_documents ADD CONSTRAINT odd CHECK (metadata->>'a' IS DISTINCT FROM 'odd')"
            )
            try:
                yield "odd"
            finally:
                admin.execute("ALTER TABLE kb_g1_documents DROP CONSTRAINT odd")

    return Store(server, config, at, partial(_contents_of_pgvector, dsn), faults, refusing)


def opensearch_store(server: OpenSearch, index: str, guard: Literal["script", "seq_no"]) -> Store:
    config = OpenSearchConfig(
        type="opensearch", url=server.endpoint["url"], index=index, guard=guard, replicas=0, timeout_seconds=60
    )

    def contents() -> Contents:
        contents_by_key: Contents = {}
        client, names = OpenSearchClient(config), Names(index)
        seen = visible(Meta(client, names).truncations(), {"range": {"chunk_count": {"gt": 0}}})
        for page in client.pages(names.alias, seen, ("document_id",), ("key", "metadata", "chunks")):
            for row in (hit["_source"] for hit in page):
                chunks = [(c["chunk_index"], c["chunk_text"], c["embedding"]) for c in row["chunks"]]
                contents_by_key[row["key"]] = (exact_json.loads(row["metadata"]), chunks)
        client.close()
        return contents_by_key

    @contextmanager
    def blocked(part: str, block: str) -> Iterator[None]:
        def put(value: bool | None) -> None:  # noqa: FBT001
            with server.client() as client:
                client.indices.put_settings(index=getattr(Names(index), part), body={f"index.blocks.{block}": value})

        put(value=True)
        try:
            yield
        finally:
            put(value=None)

    faults: dict[str, Fault] = {
        "full disk": partial(blocked, "documents", "read_only_allow_delete"),
        "full disk of vectors": partial(blocked, "vectors", "read_only_allow_delete"),
        "read-only": partial(blocked, "documents", "write"),
    }

    def at(port: int) -> SinkConfig:
        return config.model_copy(update={"url": f"http://127.0.0.1:{port}", "timeout_seconds": 1.0})

    @contextmanager
    def refusing() -> Iterator[str]:
        with closing(open_sink(config, "model=test", DIMENSIONS)) as sink:
            sink.keep_vectors(
                {digest(REFUSED): np.zeros(DIMENSIONS, "f4")}, replace=True
            )  # of which it knows no cosine
            try:
                yield "odd"
            finally:
                sink.keep_vectors({digest(REFUSED): vector_of(REFUSED)}, replace=True)

    return Store(server, config, at, contents, faults, refusing)


def documentdb_store(server: DocumentDB, database: str) -> Store:
    config = config_of(server, database)

    def contents() -> Contents:
        contents_by_key: Contents = {}
        client, names = DocumentDBClient(config), DocumentDBNames("kb")
        seen = visible_in_documentdb(DocumentDBMeta(client, config).facts().truncations, {"chunk_count": {"$gt": 0}})
        for row in client.find(names.documents, seen, ("key", "metadata", "chunks")):
            vectors = client.get(names.vectors, [c["content_hash"] for c in row["chunks"]], ["embedding"])
            chunks = [
                (c["chunk_index"], c["chunk_text"], vectors.get(c["content_hash"], {}).get("embedding", []))
                for c in row["chunks"]
            ]
            contents_by_key[row["key"]] = (exact_json.loads(row["metadata"]), chunks)
        client.close()
        return contents_by_key

    @contextmanager
    def failing(*commands: str, **fault: Any) -> Iterator[None]:
        server.fail(*commands, **fault)
        try:
            yield
        finally:
            server.fail()

    faults: dict[str, Fault] = {
        "no primary": partial(failing, "insert", "update", errorCode=10107),
        "full disk": partial(failing, "insert", "update", errorCode=14031),
        "throttled": partial(failing, "find", "insert", errorCode=16500),
        "half a bulk": partial(failing, "insert", "update", failItem=1, errorCode=16500),
        "connections lost": partial(failing, "insert", "update", closeConnection=True),
    }

    @contextmanager
    def refusing() -> Iterator[str]:
        yield "x" * (17 * 1024 * 1024)

    return Store(server, config, lambda port: through(config, port, 1.0), contents, faults, refusing)


@contextmanager
def refusing_every(store: Store, status: int) -> Iterator[SinkConfig]:
    """OpenSearch behind a proxy that answers every write with a status of its own."""
    assert isinstance(store.config, OpenSearchConfig)
    with AwsFaultProxy(store.config.url) as proxy:
        proxy.fail("POST", "busy", times=1_000_000, status=status)
        yield store.config.model_copy(update={"url": proxy.endpoint_url})


def network_faults(proxy: FaultProxy) -> dict[str, Fault]:
    """What any server and the way to it do to a client behind this proxy, while the context is open."""

    @contextmanager
    def healed(begin: Callable[[], object]) -> Iterator[None]:
        begin()
        try:
            yield
        finally:
            proxy.heal()

    @contextmanager
    def hanging() -> Iterator[None]:
        with healed(proxy.stall), repeating(1.1, proxy.drop):
            yield

    @contextmanager
    def answer_lost() -> Iterator[None]:
        with healed(lambda: proxy.delay(0.05)), repeating(0.23, proxy.drop):
            yield

    return {
        "stopped": lambda: healed(proxy.refuse),
        "slow": lambda: healed(lambda: proxy.delay(0.01)),
        "hanging": hanging,
        "answer lost": answer_lost,
    }


@contextmanager
def repeating(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """Do something again and again, beside what the context does."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(seconds):
            act()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def drift(store: Store, changes: list[Change]) -> list[Finding]:
    """What differs between a store and the fold of a history, vectors and all, by the code of `ragstream reconcile`."""
    spec, states = SPECS[TABLE], folded(changes)
    landed = {TABLE: max(change.sequence for change in changes)}
    with closing(open_sink(store.config, "model=test", DIMENSIONS)) as sink:
        marks = sink.truncations()
        wanted = {w.document_id: w for k, s in states.items() if (w := expected_of(s, k, spec, marks.get(TABLE, "")))}
        buckets = sink.bucket_checksums(1, vectors=True)
        stored = [document for bucket in buckets for document in sink.documents_in(bucket, 1, vectors=True)]
        findings = [
            finding for d in stored for finding in classify_drift(wanted.get(d.document_id), [d], landed, marks)
        ]
        there = {document.document_id for document in stored}
        missing = [
            finding
            for w in wanted.values()
            if w.document_id not in there
            for finding in classify_drift(w, [], landed, marks)
        ]
        texts = {c.content_hash: c.chunk_text for k, s in states.items() for c in _chunks(plan(None, s, k, spec))}
    other = [
        Finding("stale", d.table, d.document_id, d.name, d.revision, vector=True)
        for d in stored
        for chunk in d.chunks
        if chunk.vector != vector_hash(vector_of(texts[chunk.content_hash]))
    ]
    return [*findings, *missing, *other]


def _chunks(write: DocumentWrite | None) -> tuple[Any, ...]:
    return write.chunks if write else ()


def vector_indexes(dsn: str, table: str) -> list[bool]:
    """Whether each vector index of a store in pgvector is valid."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT indisvalid FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid JOIN pg_am AS a ON a.oid = c.relam "
            "WHERE indrelid = to_regclass(%s) AND amname = 'hnsw'",
            [f"{table}_g1_vectors"],
        )
        return [valid for (valid,) in rows]

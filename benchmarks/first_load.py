"""The first load of a store against COPY and CREATE INDEX of its vectors alone: `make bench-first-load`.

    python -m benchmarks.first_load [--parts pgvector,flink,rebuild,opensearch,recall] [--rows 200000] [--flink-rows 15000]
                                    [--chunks 100000]

- `pgvector`: a table of PostgreSQL through Debezium's snapshot and Kafka into an empty store, instant model, landing and merging
  beside it in a driver of their own. From when the connector's task runs until every row is there and the vector index is built.
  Then the vectors alone, from memory: COPY into an empty table, CREATE INDEX with as much memory and as many workers.
- `flink`: Flink SQL, the same, with fewer rows: its index is there from the start.
- `rebuild`: a store from the lake, against COPY of all its tables and then CREATE INDEX (`benchmarks.reconcile`).
- `opensearch`: guarded upserts in a load, against `_bulk` of whole documents with no refresh but the last.
- `recall`: recall@10 on real texts with the index of a load and with one that was built row by row.

Ends in one line of JSON. One run, one machine; ratios are what counts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from rich.console import Console

from benchmarks import freshness, reconcile, workload
from benchmarks.bulk_paths import bulk_path
from benchmarks.cpu import cpu_seconds, resident_mb, spent
from benchmarks.passages import DIMENSIONS, embedded, embedder, passages
from benchmarks.peers import PEERS, Peer
from benchmarks.recall import RECIPE, ask, inserts
from benchmarks.servers import servers
from benchmarks.stores import config_of, machine
from benchmarks.stores_write import DIMENSIONS as OF_WRITTEN
from benchmarks.stores_write import RECIPE as WRITTEN
from benchmarks.stores_write import Workload, upsert
from sinks import open_sink
from sinks.search import Question
from sinks.versions import BulkLoad
from tests.servers import unique
from transforms.documents.planning import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from local_stack.stack import Stack
    from sinks.protocol import Sink

LOAD_SECONDS = 1200.0
MOST_MEMORY = "1GB"
"""Of the server's, for each CREATE INDEX: the default of `index_memory_mb`."""
ONE_IN = 50
"""The share of rows that are compared with the source, vectors and all."""
_SAMPLE_SECONDS = 2.0
_RECALL_TEXTS, _QUESTIONS = 10_000, 200
_BULK_CHUNKS, _CHUNKS_A_DOCUMENT = 20_000, 4
_INDEXED = """
SELECT EXISTS (SELECT FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS a ON a.oid = c.relam
               WHERE i.indrelid = to_regclass('bench_g1_vectors') AND i.indisvalid AND a.amname = 'hnsw')"""
_LOADED = "SELECT count(*) FROM bench_g1_chunks"
console = Console(stderr=True)


def main() -> None:
    """Measure the chosen parts in turn, and print one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_load")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--flink-rows", type=int, default=15_000)
    parser.add_argument("--chunks", type=int, default=100_000)
    options = parser.parse_args()
    environment, figures = machine(), dict[str, Any]()
    for name in options.parts.split(","):
        console.print(name)
        figures[name] = PARTS[name](options)
        console.print_json(json.dumps(figures[name]))
    print(json.dumps({"benchmark": "first_load", "figures": figures, **environment}))


def of_pgvector(options: argparse.Namespace) -> dict[str, Any]:
    """Our first load, then the vectors alone, on a machine that does nothing else."""
    peer = PEERS["ragstream"]
    with servers([*freshness.PARTS, "instant-model"]) as stack, tables(stack, peer, options.rows) as (source, target):
        with loading(stack, peer, source, target):
            figures = load(stack, target, options.rows, _LOADED, _INDEXED)
            figures["wrong"] = workload.wrong_rows(source, target, peer.target, ONE_IN)
        figures["copy_then_index_per_second"] = round(options.rows / vectors_alone(target))
    figures["ratio"] = round(figures["rows_per_second"] / figures["copy_then_index_per_second"], 3)
    return figures


def of_flink(options: argparse.Namespace) -> dict[str, Any]:
    """Flink SQL's first load."""
    peer, rows = PEERS["flink"], options.flink_rows
    with (
        servers([*freshness.PARTS, "instant-model"]) as stack,
        tables(stack, peer, rows) as (source, target),
        loading(stack, peer, source, target),
    ):
        return load(stack, target, rows, "SELECT count(*) FROM flink_articles", "SELECT true")


@contextmanager
def tables(stack: Stack, peer: Peer, rows: int) -> Iterator[tuple[str, str]]:
    """A source of so many rows, and an empty target."""
    with freshness.new_databases(stack, "postgres", "vectors") as (source, target):
        workload.prepare(source, rows, whole_rows=peer.whole_rows)
        with psycopg.connect(target, autocommit=True) as connection:
            for statement in peer.create:
                connection.execute(statement.encode())
        yield source, target


@contextmanager
def loading(stack: Stack, peer: Peer, source: str, target: str) -> Iterator[None]:
    """Run a peer that has nothing to read, then let Debezium's snapshot begin."""
    name = unique("bench")
    topic = f"{name}.public.articles"
    stack.broker.create_topic(topic, 1)
    variables = {"MODEL_URL": stack.service("instant-model").endpoint["endpoint_url"], "TOPIC": topic}
    with freshness.started(stack, peer, target, name, variables):
        wait_ready(target)
        with freshness.connected(stack, peer, source, name, topic):
            yield


def wait_ready(target: str) -> None:
    """Wait until a peer is connected with its target, and then until its processes have started."""
    until = time.monotonic() + 120
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with psycopg.connect(target, autocommit=True) as connection:
        while not (connection.execute(query).fetchone() or (0,))[0] and time.monotonic() < until:
            time.sleep(0.25)
    time.sleep(20)


def load(stack: Stack, target: str, rows: int, loaded: str, indexed: str) -> dict[str, Any]:
    """Rows a second, from when the connector's task runs until the index is there; seconds of each part."""
    began, cpu = time.monotonic(), cpu_seconds(stack.directory)
    samples: list[dict[str, float]] = []
    with sampled(stack, samples):
        written = _wait(target, loaded, rows) - began
        half = dict(samples[len(samples) // 2]) if samples else {}
        ready = _wait(target, indexed, True) - began  # noqa: FBT003 - the value that is awaited
    return {
        "rows": rows, "rows_per_second": round(rows / ready), "written_seconds": round(written, 1),
        "index_seconds": round(ready - written, 1),
        "cpu_s_per_100s": spent(cpu, cpu_seconds(stack.directory), time.monotonic() - began),
        "resident_mb_half": _rounded(half), "resident_mb_end": _rounded(samples[-1] if samples else {}),
    }  # fmt: skip


def _wait(target: str, query: str, value: object) -> float:
    """The time at which a query gives a value; raises TimeoutError."""
    until = time.monotonic() + LOAD_SECONDS
    with psycopg.connect(target, autocommit=True) as connection:
        while (connection.execute(query.encode()).fetchone() or (None,))[0] != value:
            if time.monotonic() > until:
                raise TimeoutError(query)
            time.sleep(0.5)
    return time.monotonic()


@contextmanager
def sampled(stack: Stack, samples: list[dict[str, float]]) -> Iterator[None]:
    """Sample the memory of each group of processes."""
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            samples.append(resident_mb(stack.directory))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _rounded(values: dict[str, float]) -> dict[str, int]:
    return {name: round(value) for name, value in sorted(values.items())}


def vectors_alone(target: str) -> float:
    """Seconds of COPY of a store's vectors into an empty table, and CREATE INDEX."""
    with psycopg.connect(target) as connection, connection.cursor() as cursor:
        with cursor.copy("COPY bench_g1_vectors (content_hash, embedding) TO STDOUT (FORMAT binary)") as read:
            data = b"".join(map(bytes, read))
        cursor.execute("CREATE TABLE alone (content_hash text PRIMARY KEY, embedding vector(512) NOT NULL)")
        cursor.execute("ALTER TABLE alone ALTER COLUMN embedding SET STORAGE PLAIN")
        connection.commit()
        began = time.perf_counter()
        with cursor.copy("COPY alone FROM STDIN (FORMAT binary)") as write:
            write.write(data)
        connection.commit()
        cursor.execute(sql.SQL("SET maintenance_work_mem = {}").format(sql.Literal(MOST_MEMORY)))
        cursor.execute("CREATE INDEX ON alone USING hnsw (embedding vector_cosine_ops)")
        connection.commit()
        return time.perf_counter() - began


def of_rebuild(options: argparse.Namespace) -> dict[str, Any]:
    """A rebuild, and COPY of its tables and then CREATE INDEX."""
    with servers(["vectors", "instant-model"]) as stack, tempfile.TemporaryDirectory() as folder:
        return reconcile.measure(stack, Path(folder), options.chunks, compared=False)


def of_opensearch(_: argparse.Namespace) -> dict[str, Any]:
    """Guarded upserts in a load, and `_bulk`, each into a new store, in turns."""
    made, warm = (Workload(chunks, _CHUNKS_A_DOCUMENT) for chunks in (_BULK_CHUNKS, 2_000))
    took: dict[str, list[float]] = {"load": [], "bulk": []}
    with servers(["opensearch"]) as stack:
        for turn, rows in enumerate((warm, made, made)):
            for way in took:
                config = config_of(stack, "opensearch", f"{way}{turn}")
                with closing(open_sink(config, "model=bench", OF_WRITTEN)) as sink:
                    sink.prepare()
                    if way == "load":
                        seconds = in_a_load(sink, partial(upsert, sink, WRITTEN, rows.inserts, rows.vectors))
                    else:
                        seconds = bulk_path(config, rows.writes, rows.vectors)()
                    if (chunks := sink.summary().chunks) != len(rows.vectors):
                        raise AssertionError(f"{chunks} chunks of {len(rows.vectors)}")
                took[way] += [seconds] if turn else []
    ratios = [bulk / load for bulk, load in zip(took["bulk"], took["load"], strict=True)]
    return {
        "chunks": _BULK_CHUNKS, "load_per_second": [round(_BULK_CHUNKS / s) for s in took["load"]],
        "bulk_per_second": [round(_BULK_CHUNKS / s) for s in took["bulk"]], "ratios": [round(ratio, 3) for ratio in ratios],
    }  # fmt: skip


def in_a_load(sink: Sink, write: Callable[[], object]) -> float:
    """Seconds of a load with these writes, its beginning and end included."""
    began = time.perf_counter()
    if not sink.begin_bulk_load(BulkLoad("bench", time.time_ns() // 1000)):
        raise AssertionError("no load has begun")
    write()
    if not sink.end_bulk_load():
        raise AssertionError("another process builds the index")
    return time.perf_counter() - began


def of_recall(_: argparse.Namespace) -> dict[str, Any]:
    """recall@10 with each of the two indexes, and the seconds that each took."""
    texts = passages(_RECALL_TEXTS + _QUESTIONS)
    vectors = embedded(texts, lambda _: None)
    indexed, of_questions = vectors[:_RECALL_TEXTS], vectors[_RECALL_TEXTS:]
    questions = [Question(text, vector) for text, vector in zip(texts[_RECALL_TEXTS:], of_questions, strict=True)]
    by_hash = {digest(text): vector for text, vector in zip(texts, indexed, strict=False)}
    changes = inserts(texts[:_RECALL_TEXTS])
    figures: dict[str, Any] = {"texts": _RECALL_TEXTS}
    with servers(["vectors"]) as stack:
        for name in ("row_by_row", "load"):
            config = config_of(stack, "pgvector", name)
            with closing(open_sink(config, embedder().fingerprint, DIMENSIONS)) as sink:
                sink.prepare()
                write = partial(upsert, sink, RECIPE, changes, by_hash)
                seconds = in_a_load(sink, write) if name == "load" else _timed(write)
            figures[name] = {"seconds": round(seconds, 1), **ask(config, questions, indexed, lambda: None)}
    return figures


def _timed(write: Callable[[], object]) -> float:
    began = time.perf_counter()
    write()
    return time.perf_counter() - began


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "pgvector": of_pgvector, "flink": of_flink, "rebuild": of_rebuild, "opensearch": of_opensearch, "recall": of_recall,
}  # fmt: skip


if __name__ == "__main__":
    main()

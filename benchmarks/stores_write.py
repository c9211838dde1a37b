"""Guarded upserts against each store's own bulk path, and metadata updates against a plain table: `make bench-stores-write`.

The same documents, chunks and vectors go into new stores twice: through the round of every writer (fold, read, plan, vectors,
guarded write; 200 documents at a time, as a rebuild does), and by `benchmarks.bulk_paths`, in turns. Once without the vector
index, once with it. `store` is the part of the upserts that the store's own methods took. The model is never asked. Texts and
vectors are random. One run, one machine; ratios are what counts.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import psycopg

from benchmarks.bulk_paths import bulk_path, without_vector_index
from benchmarks.servers import servers
from benchmarks.stores import PARTS, config_of, machine, progress
from embeddings.onnx.config import LocalEmbeddingConfig
from embeddings.onnx.embedder import LocalEmbedder
from indexing.bulk import DOCUMENTS_AT_ONCE
from indexing.missing_vectors import MemoryCache, MissingVectors
from indexing.optimistic_writer import ChangedRows, OptimisticWriter
from schemas.changes import Change
from schemas.tables import ChunkConfig, DocumentConfig
from sinks import open_sink
from sinks.pgvector.config import PgvectorConfig
from transforms.context import key_text
from transforms.documents.planning import DocumentSpec, plan
from transforms.fold import Rows, apply
from transforms.positions.sequence import SEQUENCE_DIGITS

if TYPE_CHECKING:
    from rich.progress import Progress

    from local_stack.stack import Stack
    from schemas.documents import DocumentWrite
    from sinks import SinkConfig
    from sinks.protocol import Sink

DIMENSIONS = 384
TABLE = "public.t"
RECIPE = DocumentSpec(TABLE, DocumentConfig(template="{body}", metadata=("status", "owner"), chunk=ChunkConfig()))
_VOCABULARY, _WORDS = 5000, 110
"""A chunk has about 700 characters: two do not fit `ChunkConfig`'s 240 tokens of four bytes."""


class Workload:
    """Rows with a total number of chunks, and a vector for each text."""

    def __init__(self, chunks: int, paragraphs: int) -> None:
        """Make them, the same every time."""
        r = random.Random(7)
        words = ["".join(r.choices("abcdefghijklmnopqrstuvwxyz", k=r.randint(3, 8))) for _ in range(_VOCABULARY)]
        self.rows = [
            {"id": n, "status": "open", "owner": n % 97,
             "body": "\n\n".join(" ".join(r.choices(words, k=_WORDS)) for _ in range(paragraphs))}
            for n in range(chunks // paragraphs)
        ]  # fmt: skip
        self.inserts = [self._change(row, "c", 1) for row in self.rows]
        self.writes = [write for change in self.inserts if (write := _planned(change))]
        hashes = [chunk.content_hash for write in self.writes for chunk in write.added]
        numbers = np.random.default_rng(7).standard_normal((len(hashes), DIMENSIONS), dtype="f4")
        numbers /= np.linalg.norm(numbers, axis=1, keepdims=True)
        self.vectors = dict(zip(hashes, numbers, strict=True))
        if len(self.vectors) != chunks:
            raise AssertionError(f"{len(self.vectors)} chunks for {chunks}")

    def status_changes(self, status: str, at: int) -> list[Change]:
        """An update of each row without its text column."""
        return [self._change(row | {"status": status}, "u", at, unavailable=("body",)) for row in self.rows]

    @staticmethod
    def _change(row: dict[str, Any], op: Any, at: int, unavailable: tuple[str, ...] = ()) -> Change:
        values = {name: value for name, value in row.items() if name not in unavailable}
        key = key_text(["id"], row) or ""
        return Change(TABLE, op, f"{at:0{SEQUENCE_DIGITS}x}", key, values, not unavailable, unavailable)


def _planned(change: Change) -> DocumentWrite | None:
    rows = Rows(lambda _: None)
    apply(rows, change)
    return plan(None, rows[change.key], change.key, RECIPE)


class Timed:
    """A sink, and the seconds its methods took, each by its name."""

    def __init__(self, sink: Sink) -> None:
        """Count from nothing."""
        self._sink = sink
        self.seconds: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        """The sink's own."""
        attribute = getattr(self._sink, name)

        def timed(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            answer = attribute(*args, **options)
            self.seconds[name] += time.perf_counter() - began  # type: ignore[assignment]
            return answer

        return timed if callable(attribute) else attribute


def upsert(
    sink: Sink, spec: DocumentSpec, changes: Sequence[Change], vectors: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Seconds of changes through the optimistic writer: in all, and in each of the store's methods.

    Raises unless each was written without the model.
    """
    config = LocalEmbeddingConfig(type="local", path=Path("nowhere"), model="none", dimensions=DIMENSIONS)
    embedder, cache = LocalEmbedder(config), MemoryCache(dict(vectors))
    sink.read([])
    timed = Timed(sink)
    began = time.perf_counter()
    written = 0
    with sink.bulk_load():
        for some in batched(changes, DOCUMENTS_AT_ONCE):
            writer = OptimisticWriter(MissingVectors(embedder, cache, embedder.max_items))
            writer.write(cast("Sink", timed), ChangedRows({spec.table: some}, {spec.table: spec}))
            written += writer.counts["writes"]
    took = time.perf_counter() - began
    if written != len(changes):
        raise AssertionError(f"{written} written of {len(changes)}")
    return {"all": took, "store": sum(timed.seconds.values()), **timed.seconds}


def compare(
    new: Callable[[], SinkConfig], workload: Workload, rounds: int, *, indexed: bool, on_round: Callable[[], None]
) -> dict[str, Any]:
    """Chunks a second both ways, into new stores in turns, the median of the rounds' ratios, and where the store's time went."""
    durations, profile = [], dict[str, float]()
    for number in range(rounds):
        took: dict[str, float] = {}
        for way in ("upsert", "bulk")[:: 1 if number % 2 else -1]:
            config = new()
            with closing(open_sink(config, "model=bench", DIMENSIONS)) as sink:
                sink.prepare()
                if not indexed:
                    without_vector_index(config, DIMENSIONS)
                if way == "upsert":
                    spent = upsert(sink, RECIPE, workload.inserts, workload.vectors)
                    took |= {"upsert": spent.pop("all"), "store": spent.pop("store")}
                    profile = {name: round(seconds, 2) for name, seconds in spent.items()}
                else:
                    took[way] = bulk_path(config, workload.writes, workload.vectors)()
                chunks = sink.summary().chunks
            if chunks != len(workload.vectors):
                raise AssertionError(f"{chunks} chunks in the store, not {len(workload.vectors)}")
        durations.append(took)
        on_round()
    return _figures(durations, len(workload.vectors), "bulk") | {"store_seconds": profile}


def _figures(durations: Sequence[Mapping[str, float]], rows: int, other: str) -> dict[str, Any]:
    """Rows a second of each way, and the other's seconds over those of the upserts and of the store's part in them."""
    speeds = {
        f"{way}_per_second": round(rows / statistics.median(took[way] for took in durations)) for way in durations[0]
    }
    ratios = {
        f"{way}_ratio": round(statistics.median(took[other] / took[way] for took in durations), 3)
        for way in durations[0] if way != other
    }  # fmt: skip
    return speeds | ratios | {"ratios": [round(took[other] / took["upsert"], 3) for took in durations]}


def plain_updates(dsn: str, workload: Workload, rounds: int) -> Iterator[float]:
    """Seconds of a guarded update of each row in a table that has no vectors, as many in a transaction."""
    statement = "UPDATE plain SET metadata = %s::jsonb, sequence = %s WHERE id = %s AND sequence < %s"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            'CREATE TABLE plain (id text COLLATE "C" PRIMARY KEY, sequence text COLLATE "C", metadata jsonb, body text)'
            " WITH (fillfactor = 70)"
        )  # fmt: skip
        rows = [(w.document_id, w.state.newest, json.dumps(dict(w.metadata)), r["body"])
                for w, r in zip(workload.writes, workload.rows, strict=True)]  # fmt: skip
        connection.cursor().executemany("INSERT INTO plain VALUES (%s, %s, %s, %s)", rows)
        for number in range(rounds):
            at = f"{number + 2:0{SEQUENCE_DIGITS}x}"
            metadata = json.dumps({"status": f"s{number}", "owner": 1})
            began = time.perf_counter()
            for some in batched(rows, DOCUMENTS_AT_ONCE):
                with connection.transaction():
                    connection.cursor().executemany(statement, [(metadata, at, name, at) for name, *_ in some])
            yield time.perf_counter() - began


def compare_metadata(config: PgvectorConfig, workload: Workload, rounds: int) -> dict[str, Any]:
    """Metadata-only updates a second in a filled store with its index, and in a table without vectors, in turns."""
    durations = []
    with closing(open_sink(config, "model=bench", DIMENSIONS)) as sink:
        sink.prepare()
        upsert(sink, RECIPE, workload.inserts, workload.vectors)
        plain = plain_updates(config.dsn.get_secret_value(), workload, rounds)
        for number in range(rounds):
            spent = upsert(sink, RECIPE, workload.status_changes(f"s{number}", number + 2), workload.vectors)
            durations.append({"upsert": spent["all"], "write": spent["write"], "plain": next(plain)})
        if (chunks := sink.summary().chunks) != len(workload.vectors):
            raise AssertionError(f"{chunks} chunks after changes of metadata, not {len(workload.vectors)}")
    return _figures(durations, len(workload.rows), "plain")


def measure(stack: Stack, options: argparse.Namespace, bars: Progress) -> dict[str, Any]:
    """Every store, without its vector index and with it, then metadata in pgvector."""
    workload = Workload(options.chunks, options.chunks_a_document)
    warm = Workload(min(options.chunks, 2000), options.chunks_a_document)
    figures: dict[str, Any] = {}
    numbers = iter(range(1000))
    for store in options.stores:
        new = lambda store=store: config_of(stack, store, f"s{next(numbers)}")  # noqa: E731  # type: ignore[misc]
        compare(new, warm, 1, indexed=True, on_round=lambda: None)
        for indexed, name in ((False, "empty"), (True, "indexed")):
            bar = bars.add_task(f"{store}: {name}", total=options.rounds)
            measured = compare(new, workload, options.rounds, indexed=indexed, on_round=partial(bars.advance, bar))
            figures.setdefault(store, {})[name] = measured
    if "pgvector" in options.stores:
        config = config_of(stack, "pgvector", "metadata")
        assert isinstance(config, PgvectorConfig)  # noqa: S101 - for the type checker
        bar = bars.add_task("pgvector: metadata", total=1)
        some = Workload(options.chunks // 4, 1)
        figures["pgvector"]["metadata"] = compare_metadata(config, some, max(9, options.rounds))
        bars.advance(bar)
    return figures


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stores_write")
    parser.add_argument("--chunks", type=int, default=20_000)
    parser.add_argument("--chunks-a-document", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stores", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    environment = machine()
    with servers([PARTS[store] for store in options.stores]) as stack, progress() as bars:
        figures = measure(stack, options, bars)
    shape = {"chunks": options.chunks, "chunks_a_document": options.chunks_a_document, "dimensions": DIMENSIONS}
    print(
        json.dumps({"benchmark": "stores_write", **shape, "rounds": options.rounds, "figures": figures, **environment})
    )


if __name__ == "__main__":
    main()

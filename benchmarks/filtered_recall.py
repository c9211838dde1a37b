"""recall@10 of filtered searches against exact search among what the filter lets through: `make bench-filtered_recall`.

20,000 passages (`benchmarks.passages`), embedded by MiniLM, are written as any pipeline writes them, one document each, and
questions that are passages too, but not among them, are asked of 10 %, 1 % and 0.1 % of them. `spread` filters let rows through
by their number; `slice` filters rows that lie together in the space of the vectors, as a tenant's do, mostly far from the
question: there a graph that is searched first and filtered after finds nothing. A hit counts when no document that was left out
is nearer. Also printed are milliseconds of a search ÷ those of the same question without a filter, in one run. The stand-in for
DocumentDB searches exactly, so its figure shows what joins and filters lose, not an index.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg

from benchmarks.passages import DIMENSIONS, embedded, embedder, passages
from benchmarks.recall import OF_A_STAND_IN, K, recall
from benchmarks.servers import servers
from benchmarks.stores import PARTS, config_of, machine, progress
from benchmarks.stores_write import upsert
from schemas.changes import Change
from schemas.tables import ChunkConfig, DocumentConfig
from sinks import open_index, open_sink
from sinks.pgvector.config import PgvectorConfig
from sinks.search import ANYTHING, Filters, Question
from transforms.context import key_text
from transforms.documents.planning import DocumentSpec, digest
from transforms.filters.parsing import Filterable, parse
from transforms.positions.sequence import SEQUENCE_DIGITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sinks import SinkConfig
    from sinks.search import Index

TABLE = "public.passages"
PARTS_OF_ALL = {"10 %": 10, "1 %": 100, "0.1 %": 1000}
COLUMNS = tuple(f"{way}_{parts}" for way in ("spread", "slice") for parts in PARTS_OF_ALL.values())
FILTERABLE = Filterable({TABLE: dict.fromkeys(COLUMNS, "int")})
RECIPE = DocumentSpec(
    TABLE, DocumentConfig(template="{body}", metadata=COLUMNS, chunk=ChunkConfig(max_tokens=240, overlap=0))
)


def labelled(vectors: np.ndarray) -> dict[str, np.ndarray]:
    """The value of each column of each row: parts of equal size, by the row's number or along one direction of the vectors."""
    number = np.arange(len(vectors))
    along = np.random.default_rng(22).standard_normal(vectors.shape[1], dtype=np.float32)
    place = np.argsort(np.argsort(vectors @ along))
    parts = PARTS_OF_ALL.values()
    return {
        **{f"spread_{n}": number % n for n in parts}, **{f"slice_{n}": place * n // len(vectors) for n in parts},
    }  # fmt: skip


def inserts(texts: Sequence[str], values: dict[str, np.ndarray]) -> Iterator[Change]:
    """A row for each text, with its columns."""
    at = f"{1:0{SEQUENCE_DIGITS}x}"
    for number, text in enumerate(texts):
        row = {"id": number, "body": text, **{name: int(column[number]) for name, column in values.items()}}
        yield Change(TABLE, "c", at, key_text(["id"], row) or "", row, complete=True)


def ask(
    index: Index, questions: Sequence[Question], vectors: np.ndarray, on_done: Callable[[], None]
) -> dict[str, Any]:
    """Ask every question without a filter, then with each, in turn."""
    values = labelled(vectors)
    recalls: dict[str, list[float]] = {name: [] for name in COLUMNS}
    took: dict[str, list[float]] = {name: [] for name in ("all", *COLUMNS)}
    for number, question in enumerate(questions):
        index.coverage(question.text, ())
        cosines = vectors @ question.vector
        for name, milliseconds in took.items():
            part = number % int(name.rpartition("_")[2]) if name in values else 0
            filters = ANYTHING if name == "all" else Filters((), (parse(f"{name} = {part}", FILTERABLE),))
            began = time.perf_counter()
            hits = index.dense(question, K, filters)
            milliseconds.append((time.perf_counter() - began) * 1000)
            if name in recalls:
                recalls[name].append(recall([int(hit.key["id"]) for hit in hits], cosines, values[name] == part))
        on_done()
    unfiltered = statistics.median(took["all"])
    return {"ms_p50": round(unfiltered, 1), "questions": len(questions)} | {
        f"{way} {share}": {
            "recall": round(statistics.fmean(recalls[name]), 4), "worst": min(recalls[name]),
            "ms_p50": round(statistics.median(took[name]), 1),
            "ratio": round(statistics.median(took[name]) / unfiltered, 2),
        }
        for way in ("spread", "slice")
        for share, parts in PARTS_OF_ALL.items()
        if (name := f"{way}_{parts}")
    }  # fmt: skip


def measured(
    config: SinkConfig,
    texts: Sequence[str],
    vectors: np.ndarray,
    questions: Sequence[Question],
    on_done: Callable[[], None],
) -> dict[str, Any]:
    """Fill a new store, and ask it."""
    by_hash = {digest(text): vector for text, vector in zip(texts, vectors, strict=True)}
    with closing(open_sink(config, embedder().fingerprint, DIMENSIONS)) as sink:
        sink.prepare()
        upsert(sink, RECIPE, list(inserts(texts, labelled(vectors))), by_hash)
    if isinstance(config, PgvectorConfig):
        with psycopg.connect(config.dsn.get_secret_value(), autocommit=True) as connection:
            connection.execute("ANALYZE")  # as autovacuum does within a minute
    with closing(open_index(config, embedder().fingerprint)) as index:
        index.check()
        return ask(index, questions, vectors, on_done)


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.filtered_recall")
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--stores", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    hardware, figures = machine(), dict[str, Any]()
    texts = passages(options.texts + options.questions)
    with progress() as bars:
        bar = bars.add_task("embedded", total=len(texts))
        vectors = embedded(texts, lambda done: bars.advance(bar, done))
        stored, asked = vectors[: options.texts], vectors[options.texts :]
        questions = [Question(text, v) for text, v in zip(texts[options.texts :], asked, strict=True)]
        with servers([PARTS[store] for store in options.stores]) as stack:
            for store in options.stores:
                mine = questions[: OF_A_STAND_IN.get(store)]
                bar = bars.add_task(store, total=len(mine))
                config = config_of(stack, store, "filtered")
                advance = lambda bar=bar: bars.advance(bar)  # noqa: E731
                figures[store] = measured(config, texts[: options.texts], stored, mine, advance)
    shape = {"texts": options.texts, "k": K, "dimensions": DIMENSIONS}
    print(json.dumps({"benchmark": "filtered_recall", **shape, "figures": figures, **hardware}))


if __name__ == "__main__":
    main()

"""recall@10 of each store's dense search against exact search, on real texts: `make bench-recall`.

20,000 passages (`benchmarks.passages`), embedded by MiniLM, are written as any pipeline writes them, one document each, and
questions that are passages too, but not among them, are asked through `retrieval`: of everything, and of the documents that a
metadata filter lets through, a hundredth of all. A hit counts when no document that was left out is nearer. Also printed are
milliseconds of a search; the stand-in for DocumentDB searches exactly, so its figure shows what joins and filters lose, not
an index.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.passages import DIMENSIONS, embedded, embedder, passages
from benchmarks.servers import servers
from benchmarks.stores import PARTS, config_of, machine, progress
from benchmarks.stores_write import upsert
from schemas.changes import Change
from schemas.tables import ChunkConfig, DocumentConfig
from sinks import open_index, open_sink
from sinks.search import ANYTHING, Filters, Question
from transforms.context import key_text
from transforms.documents.planning import DocumentSpec, digest
from transforms.filters.parsing import Filterable, parse
from transforms.positions.sequence import SEQUENCE_DIGITS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sinks import SinkConfig

K = 10
SHELVES = 100
TABLE = "public.passages"
RECIPE = DocumentSpec(
    TABLE, DocumentConfig(template="{body}", metadata=("shelf",), chunk=ChunkConfig(max_tokens=240, overlap=0))
)
COLUMNS = Filterable({TABLE: {"shelf": "int"}})
OF_A_STAND_IN = {"documentdb": 20}
"""Most questions: the stand-in for DocumentDB has no index and scans every document for each, for seconds."""
_CLOSE = 1e-5
"""Cosines within this difference count as equal: stores and NumPy sum in another order."""


def inserts(texts: Sequence[str]) -> list[Change]:
    """A row for each text, on one of the shelves."""
    rows = [{"id": n, "shelf": n % SHELVES, "body": text} for n, text in enumerate(texts)]
    at = f"{1:0{SEQUENCE_DIGITS}x}"
    return [Change(TABLE, "c", at, key_text(["id"], row) or "", row, complete=True) for row in rows]


def recall(ids: Sequence[int], cosines: np.ndarray, allowed: np.ndarray) -> float:
    """The share of the k nearest that was found; equally near documents are interchangeable."""
    least = np.sort(cosines[allowed])[-K] - _CLOSE
    return sum(bool(allowed[n] and cosines[n] >= least) for n in set(ids)) / K


def ask(
    config: SinkConfig, questions: Sequence[Question], vectors: np.ndarray, on_done: Callable[[], None]
) -> dict[str, Any]:
    """Ask every question with and without a filter."""
    shelf = np.arange(len(vectors)) % SHELVES
    samples: dict[str, tuple[list[float], list[float]]] = {"all": ([], []), "filter": ([], [])}
    with closing(open_index(config, embedder().fingerprint)) as index:
        index.check()
        for number, question in enumerate(questions):
            cosines = vectors @ question.vector
            mine = Filters((), (parse(f"shelf = {number % SHELVES}", COLUMNS),))
            for name, filters, allowed in (
                ("all", ANYTHING, np.ones(len(vectors), bool)), ("filter", mine, shelf == number % SHELVES),
            ):  # fmt: skip
                index.coverage(question.text, ())
                began = time.perf_counter()
                hits = index.dense(question, K, filters)
                samples[name][1].append((time.perf_counter() - began) * 1000)
                samples[name][0].append(recall([int(hit.key["id"]) for hit in hits], cosines, allowed))
            on_done()
    return {
        name: {
            "recall": round(statistics.fmean(recalls), 4), "worst": min(recalls),
            "ms_p50": round(statistics.median(took), 1), "ms_p95": round(statistics.quantiles(took, n=20)[-1], 1),
        }
        for name, (recalls, took) in samples.items()
    }  # fmt: skip


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recall")
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--stores", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    environment = machine()
    texts = passages(options.texts + options.questions)
    figures: dict[str, Any] = {}
    with progress() as bars:
        bar = bars.add_task("embedded", total=len(texts))
        vectors = embedded(texts, lambda done: bars.advance(bar, done))
        indexed, asked = vectors[: options.texts], vectors[options.texts :]
        questions = [Question(text, v) for text, v in zip(texts[options.texts :], asked, strict=True)]
        by_hash = {digest(text): vector for text, vector in zip(texts, indexed, strict=False)}
        with servers([PARTS[store] for store in options.stores]) as stack:
            for store in options.stores:
                mine = questions[: OF_A_STAND_IN.get(store)]
                bar = bars.add_task(store, total=len(mine))
                config = config_of(stack, store, "passages")
                with closing(open_sink(config, embedder().fingerprint, DIMENSIONS)) as sink:
                    sink.prepare()
                    upsert(sink, RECIPE, inserts(texts[: options.texts]), by_hash)
                figures[store] = ask(config, mine, indexed, lambda bar=bar: bars.advance(bar))  # type: ignore[misc]
                figures[store]["questions"] = len(mine)
    shape = {"texts": options.texts, "k": K, "dimensions": DIMENSIONS}
    print(json.dumps({"benchmark": "recall", **shape, "figures": figures, **environment}))


if __name__ == "__main__":
    main()

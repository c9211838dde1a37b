"""Quality of search and answers on the helpdesk's labelled questions, with the real model and a real store.

    make bench-search_quality

Prints recall at 1 and 5 and the mean reciprocal rank of each way to search, then how often answering and abstaining are
right, for both answerers. The last line is JSON.
"""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from embeddings.onnx.config import LocalEmbeddingConfig
from embeddings.onnx.embedder import LocalEmbedder
from generation import BedrockGenerationConfig, open_generator
from local_stack.demo.helpdesk import Question as Labelled
from local_stack.demo.helpdesk import questions
from local_stack.models.minilm import MAX_TOKENS, minilm_folder
from local_stack.models.service import ModelService
from local_stack.servers.postgres import VectorStore
from retrieval.ask import Assistant
from retrieval.extractive import ExtractiveAnswerer
from retrieval.fusion import MINILM, Ranked, Tuning, fuse
from retrieval.generative import GenerativeAnswerer
from retrieval.search import CANDIDATES, Searcher
from sinks.pgvector.config import PgvectorConfig
from sinks.pgvector.reader import PgvectorIndex
from sinks.pgvector.writer import PgvectorSink
from sinks.search import Hit, Question
from tests.helpdesk import fill

MODEL = "all-MiniLM-L6-v2"
GENERATIVE_MODEL = "smollm2-135m-instruct"
K = 5
SAMPLE = 6
"""The small text model takes seconds a question, so it answers every sixth."""


def main() -> None:
    """Start a store and the text model, measure, stop them."""
    with tempfile.TemporaryDirectory(prefix="ragstream-quality-") as folder:
        embedder = LocalEmbedder(
            LocalEmbeddingConfig(
                type="local", path=minilm_folder(), model=MODEL, dimensions=384, max_tokens=MAX_TOKENS, threads=1
            )
        )
        with VectorStore(Path(folder) / "vectors") as store, ModelService(Path(folder) / "model") as model:
            config = PgvectorConfig(type="pgvector", dsn=SecretStr(store.endpoint["dsn"]), table="helpdesk")
            sink = PgvectorSink(config, embedder.fingerprint, embedder.dimensions)
            sink.prepare()
            fill(sink, embedder)
            sink.close()
            index = PgvectorIndex(config, embedder.fingerprint)
            searcher = Searcher(index, embedder, Tuning(MINILM))
            figures: dict[str, Any] = {"search": ways_to_search(index, embedder), "abstention": abstention(searcher)}
            figures |= answering(searcher, model.endpoint["endpoint_url"])
            index.close()
    figures |= {"model": MODEL, "machine": platform.machine(), "python": platform.python_version()}
    print(json.dumps({"bench": "search_quality", **figures}))


def ways_to_search(index: PgvectorIndex, embedder: LocalEmbedder) -> dict[str, Any]:
    """Rank every answerable question's rows in four ways."""
    asked = [(q, Question(q.query, embedder.embed_query(q.query))) for q in questions() if q.expected]
    halves = [(q, index.dense(v, CANDIDATES), index.lexical(v, CANDIDATES)) for q, v in asked]
    orders: dict[str, Callable[[list[Hit], list[Hit]], list[Hit]]] = {
        "dense": lambda dense, _: dense,
        "lexical": lambda _, lexical: lexical,
        "hybrid": lambda dense, lexical: [ranked.hit for ranked in fuse(dense, lexical)],
        "reciprocal ranks, equal weights": reciprocal_ranks,
    }
    found = {}
    for name, order in orders.items():
        places = {q.query_id: _place(q, order(dense, lexical)) for q, dense, lexical in halves}
        found[name] = {kind: _figures(places, kind) for kind in ("all", "plain", "rare")}
        print(f"{name:32}", *(f"{kind}: {_shown(found[name][kind])}" for kind in found[name]), sep="  ")
    return found


def reciprocal_ranks(dense: Sequence[Hit], lexical: Sequence[Hit]) -> list[Hit]:
    """Fuse by 1 / (60 + rank), for comparison."""
    scores: dict[str, float] = {}
    hits = {hit.document_id: hit for hit in (*lexical, *dense)}
    for half in (dense, lexical):
        for rank, hit in enumerate(half, 1):
            scores[hit.document_id] = scores.get(hit.document_id, 0) + 1 / (60 + rank)
    return [hits[document] for document in sorted(scores, key=lambda document: -scores[document])]


def abstention(searcher: Searcher) -> dict[str, Any]:
    """Count wrong answers and wrong abstentions, and measure a search."""
    wrong = {"refused though answerable": [], "let through though not": []}  # type: dict[str, list[str]]
    took = []
    for question in questions():
        began = time.perf_counter()
        found = searcher.search(question.query, K)
        took.append((time.perf_counter() - began) * 1000)
        if found.abstained and question.expected:
            wrong["refused though answerable"].append(question.query)
        if not found.abstained and not question.expected:
            wrong["let through though not"].append(question.query)
    for name, texts in wrong.items():
        print(f"{name}: {len(texts)}: {texts}")
    answerable = sum(bool(q.expected) for q in questions())
    return {
        "answerable": answerable,
        "unanswerable": len(questions()) - answerable,
        **{name: len(texts) for name, texts in wrong.items()},
        "search_ms_p50": round(statistics.median(took), 1),
    }


def answering(searcher: Searcher, endpoint_url: str) -> dict[str, Any]:
    """Let both answerers answer the same sample, and the extractive one everything."""
    generation = BedrockGenerationConfig(
        type="bedrock", model=GENERATIVE_MODEL, endpoint_url=endpoint_url, max_tokens=64,
        read_timeout_seconds=300, timeout_seconds=300,
    )  # fmt: skip
    extractive = ExtractiveAnswerer(searcher.index, searcher.embedder, MODEL, 2)
    generative = GenerativeAnswerer(open_generator(generation))
    everything, sample = questions(), questions()[::SAMPLE]
    figures = {
        "extractive": _answers(Assistant(searcher, extractive), everything),
        "extractive, sample": _answers(Assistant(searcher, extractive), sample),
        "generative, sample": _answers(Assistant(searcher, generative), sample),
    }
    for name, found in figures.items():
        print(f"{name:20}", found)
    return {"answers": figures}


def _answers(assistant: Assistant, asked: Sequence[Labelled]) -> dict[str, float]:
    """The share of right answers, which contain a labelled phrase and cite a labelled row."""
    right, phrase, honest, took = 0, 0, 0, []
    for question in asked:
        began = time.perf_counter()
        answer = assistant.ask(question.query)
        took.append(time.perf_counter() - began)
        cites = {(hit.table, hit.key["id"]) for hit in answer.cites}
        says = any(p.lower() in answer.text.lower() for p in question.answer_contains)
        phrase += says and bool(question.expected)
        right += says and bool(cites & set(question.expected))
        honest += answer.abstained and not question.expected
    answerable = sum(bool(question.expected) for question in asked)
    return {
        "questions": len(asked),
        "right": round(right / answerable, 3),
        "says_the_phrase": round(phrase / answerable, 3),
        "abstains_where_it_should": round(honest / (len(asked) - answerable), 3),
        "seconds_p50": round(statistics.median(took), 3),
    }


def _place(question: Labelled, hits: Sequence[Hit] | Sequence[Ranked]) -> int:
    """Rank of the first expected row, 0 where it was not found."""
    for place, hit in enumerate(hits, 1):
        if isinstance(hit, Hit) and (hit.table, hit.key["id"]) in question.expected:
            return place
    return 0


def _figures(places: dict[str, int], kind: str) -> dict[str, float]:
    kept = [places[q.query_id] for q in questions() if q.query_id in places and kind in {"all", q.kind}]
    return {
        "recall@1": round(sum(p == 1 for p in kept) / len(kept), 3),
        "recall@5": round(sum(1 <= p <= K for p in kept) / len(kept), 3),
        "mrr": round(sum(1 / p for p in kept if p) / len(kept), 3),
    }


def _shown(figures: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in figures.items())


if __name__ == "__main__":
    main()

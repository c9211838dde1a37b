"""Quality of search and answers on labelled questions, with the real model and a real store.

    make bench-search_quality

The helpdesk's questions, and those of `benchmarks.labelled` by halves: one for tuning, one held out. Prints recall, nDCG and
reciprocal rank of each way to search, whether the local late-interaction scorer is a gain as a reranker, abstention, and answers
before and after every labelled row was edited. The last line is JSON.

`by sentences` adds to a chunk's score the similarity of its best sentence with its headings; its weight is that with the best
reciprocal rank on the tuning half.
"""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from benchmarks import labelled
from embeddings.onnx.config import LocalEmbeddingConfig
from embeddings.onnx.embedder import LocalEmbedder
from evaluation import abstention, answers, ranking, reranking, runs
from evaluation.calibration import calibrate
from evaluation.golden import GoldenQuestion, key_of, read_golden
from local_stack.demo import helpdesk
from local_stack.models.minilm import MAX_TOKENS, minilm_folder, open_minilm
from local_stack.models.rerank import late_interaction
from local_stack.servers.postgres import VectorStore
from retrieval.answering.ask import Assistant
from retrieval.answering.extractive import ExtractiveAnswerer
from retrieval.answering.sentences import sentences_of
from retrieval.config import EXTRACTIVE
from retrieval.ranking.fusion import FUSION, MINILM, Ranked, Tuning
from retrieval.ranking.search import CANDIDATES, Searcher
from sinks.pgvector.config import PgvectorConfig
from sinks.pgvector.reader import PgvectorIndex
from sinks.pgvector.writer import PgvectorSink
from sinks.search import Hit
from tests.helpdesk import document_spec, fill, put

MODEL = "all-MiniLM-L6-v2"
SENTENCE_WEIGHT = 2.0
"""Of 0.25, 0.5, 1 and 2."""


class LateInteraction:
    """A `Reranker` in this process: the scorer that the local stack has behind Bedrock Rerank's wire format."""

    model, candidates = f"late interaction of {MODEL}", 25

    def __init__(self) -> None:
        self._encoder = open_minilm()

    def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        """Score each text."""
        return late_interaction(self._encoder.token_vectors, query, texts)

    def check(self) -> None:
        """Nothing can be wrong."""


def main() -> None:
    """Start a store, measure, stop it."""
    with tempfile.TemporaryDirectory(prefix="ragstream-quality-") as folder:
        embedder = LocalEmbedder(
            LocalEmbeddingConfig(
                type="local", path=minilm_folder(), model=MODEL, dimensions=384, max_tokens=MAX_TOKENS, threads=1
            )
        )
        with VectorStore(Path(folder) / "vectors") as store:
            config = PgvectorConfig(type="pgvector", dsn=SecretStr(store.endpoint["dsn"]), table="quality")
            sink = PgvectorSink(config, embedder.fingerprint, embedder.dimensions)
            sink.prepare()
            fill(sink, embedder)
            put_labelled(sink, embedder, labelled.rows(), at=1)
            index = PgvectorIndex(config, embedder.fingerprint)
            searcher = Searcher(index, embedder, Tuning(MINILM))
            figures = measure(searcher)
            put_labelled(sink, embedder, labelled.edited(), at=2)
            figures["edited"] = edited(assistant_of(searcher))
            index.close()
            sink.close()
    figures |= {"model": MODEL, "machine": platform.machine(), "python": platform.python_version()}
    print(json.dumps({"bench": "search_quality", **figures}))


def put_labelled(sink: PgvectorSink, embedder: LocalEmbedder, tables: Mapping[str, Any], *, at: int) -> None:
    """Write the labelled rows as of a position in the source's log."""
    for table, rows in tables.items():
        put(sink, embedder, table, rows, at=at, specs={table: document_spec(table)})


def golden() -> dict[str, list[GoldenQuestion]]:
    """The questions of each set."""
    golden = {"helpdesk": read_golden(str(Path(helpdesk.__file__).parent / "questions.jsonl"))}
    for half in ("tune", "held_out"):
        golden[half] = [
            GoldenQuestion(q.query, frozenset((t, key_of({"id": n})) for t, n in q.expected), q.kind, (q.answer,))
            for q in labelled.questions()
            if q.half == half
        ]
    return golden


def measure(searcher: Searcher) -> dict[str, Any]:
    """Search, abstention and answers of each set; then the thresholds that the tuning half gives, on the half held out."""
    asked = {name: runs.ask_all(searcher, questions, lambda: None) for name, questions in golden().items()}
    sets: dict[str, Any] = {}
    by_sentences = BySentences(searcher)
    for name, questions in asked.items():
        timed = reranking.Timed(LateInteraction())
        rankings = runs.ways(questions, FUSION, timed) | {
            "reciprocal ranks": [reciprocal_ranks(a.dense, a.lexical) for a in questions],
            "by sentences": [by_sentences.order(a) for a in questions],
        }
        values = ranking.measured(questions, rankings)
        sets[name] = {
            "search": ranking.figures(questions, values),
            "reranking": reranking.figures(questions, values, timed),
            "abstention": without_curves(abstention.figures(abstention.verdicts(questions, searcher.tuning))),
            "answers": answers.figures(
                answers.ask_all(assistant_of(searcher), [a.golden for a in questions], lambda: None)
            ),
        }
        show(name, sets[name])
    calibrated = calibrate(asked["tune"])
    judged = abstention.verdicts(asked["held_out"], calibrated.tuning)
    sets["calibrated on tune, judged on held_out"] = calibrated.as_json() | {
        "abstention": without_curves(abstention.figures(judged))
    }
    took = []
    for question in asked["helpdesk"]:
        began = time.perf_counter()
        searcher.search(question.golden.query, abstention.DEPTH)
        took.append((time.perf_counter() - began) * 1000)
    return {"sets": sets, "search_ms_p50": round(statistics.median(took), 1)}


def edited(assistant: Assistant) -> dict[str, Any]:
    """How many questions about an edited value are answered with the new one, and how many with the old one."""
    figures: dict[str, Any] = {}
    edits = labelled.edits()
    for question in labelled.questions():
        for row in question.expected:
            counts = figures.setdefault(f"{question.half} {question.kind}", dict.fromkeys(("edits", "new", "stale"), 0))
            text, (old, new) = assistant.ask(question.query).text, edits[row]
            counts["edits"] += 1
            counts["new"] += new in text
            counts["stale"] += old in text.replace(new, "")
    print("edited rows", figures)
    return figures


def assistant_of(searcher: Searcher) -> Assistant:
    """The assistant with the default answerer."""
    answerer = ExtractiveAnswerer(searcher.index, searcher.embedder, MODEL, EXTRACTIVE.sentences)
    return Assistant(searcher, answerer)


def reciprocal_ranks(dense: Sequence[Hit], lexical: Sequence[Hit]) -> list[Hit]:
    """Fuse by 1 / (60 + rank), for comparison."""
    scores: dict[str, float] = {}
    hits = {hit.document_id: hit for hit in (*lexical, *dense)}
    for half in (dense, lexical):
        for rank, hit in enumerate(half, 1):
            scores[hit.document_id] = scores.get(hit.document_id, 0) + 1 / (60 + rank)
    return [hits[document] for document in sorted(scores, key=lambda document: -scores[document])]


class BySentences:
    """Ranks what both halves found by the score of the chunk and the similarity of its best sentence."""

    def __init__(self, searcher: Searcher) -> None:
        self._embedder = searcher.embedder
        self._vectors: dict[str, Any] = {}

    def order(self, asked: runs.Asked) -> list[Hit]:
        """The hits, best first."""
        vector = self._embedder.embed_query(asked.golden.query)

        def score(ranked: Ranked) -> float:
            texts = [sentence.in_context for sentence in sentences_of(ranked.hit.chunk_text)]
            new = [text for text in texts if text not in self._vectors]
            self._vectors |= zip(new, self._embedder.embed_documents(new), strict=True)
            return ranked.score + SENTENCE_WEIGHT * max((float(self._vectors[t] @ vector) for t in texts), default=-1.0)

        ranked = asked.fused(FUSION)[:CANDIDATES]
        return [hit.hit for hit in sorted(ranked, key=score, reverse=True)]


def without_curves(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures of abstention without the points of their curves."""
    shown = {kind: {name: v for name, v in miss.items() if name != "curve"} for kind, miss in figures["misses"].items()}
    return figures | {"misses": shown}


def show(name: str, figures: Mapping[str, Any]) -> None:
    """Print one set's figures."""
    for kind, group in figures["search"].items():
        for way, measures in group["ways"].items():
            values = "  ".join(f"{measure} {value['mean']:.3f}" for measure, value in measures.items())
            print(f"{name:10} {kind:12} {way:18} {values}")
    print(name, reranking.sentence(figures["reranking"]))
    print(name, "abstention", figures["abstention"])
    print(name, "answers", figures["answers"])


if __name__ == "__main__":
    main()

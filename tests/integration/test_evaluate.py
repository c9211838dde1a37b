"""`ragstream evaluate` on a real store that a model filled which nobody measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from embeddings.onnx.config import LocalEmbeddingConfig
from embeddings.onnx.embedder import LocalEmbedder
from evaluation.draft import drafts
from evaluation.evaluate import evaluate, questions_of
from glue_jobs.cli.evaluate import evaluate as command
from local_stack.demo.helpdesk import rows
from local_stack.models.minilm import MAX_TOKENS, minilm_folder
from local_stack.servers.postgres import VectorStore
from reranking import BedrockRerankingConfig
from retrieval import EXTRACTIVE, RetrievalConfig, commands
from retrieval.answering.ask import UNMEASURED
from sinks import open_sink
from sinks.pgvector.config import PgvectorConfig
from tests.asking import Pipeline
from tests.endpoint import Endpoint
from tests.helpdesk import fill
from tests.servers import new_database

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "local_stack/demo/helpdesk/questions.jsonl"
MODEL = LocalEmbeddingConfig(
    type="local", path=minilm_folder(), model="a-new-model", dimensions=384, max_tokens=MAX_TOKENS, threads=1
)
PURPLE = "What does a purple ring on the hub mean?"


@pytest.fixture(scope="module")
def pipeline(vectors: VectorStore) -> Iterator[Pipeline]:
    for dsn in new_database(vectors):
        config = PgvectorConfig(type="pgvector", dsn=SecretStr(dsn), table="helpdesk")
        embedder = LocalEmbedder(MODEL)
        with closing(open_sink(config, embedder.fingerprint, embedder.dimensions)) as sink:
            sink.prepare()
            fill(sink, embedder)
        yield Pipeline(MODEL, (config,), EXTRACTIVE)


def test_a_model_that_nobody_measured_abstains_until_it_is_calibrated(pipeline: Pipeline) -> None:
    (note,) = commands.unmeasured(pipeline)
    assert "sink pgvector: nobody measured" in note
    assert "a-new-model" in note
    before = commands.ask(pipeline, PURPLE)
    assert (before["abstained"], before["answer"]) == (True, UNMEASURED)
    own = Pipeline(MODEL, pipeline.sinks, EXTRACTIVE, retrieval=RetrievalConfig(min_similarity=0.3))
    assert not commands.ask(own, PURPLE)["abstained"]
    assert list(commands.unmeasured(own)) == []

    (golden, _), steps = questions_of(str(GOLDEN)), list[str]()
    report = evaluate(pipeline, golden, None, steps.append, keep=True, with_answers=False)
    assert (len(steps), set(steps)) == (129, {"search"})
    hybrid, dense = (report["search"]["all"]["ways"][way]["R@5"] for way in ("hybrid", "dense"))
    assert hybrid["mean"] >= 0.95
    assert hybrid["mean"] > dense["mean"]
    assert hybrid["p"] < 0.05
    assert report["abstention"]["refused"] <= 20
    assert report["abstention"]["misses"]["none"]["let_through"] <= 9
    held_out = report["calibration"]["held_out"]
    assert held_out["found@5"] > held_out["dense_found@5"]
    assert held_out["answerable_kept"] > 0.7 < held_out["misses_refused"]
    after = commands.ask(pipeline, PURPLE)
    assert "backup battery" in after["answer"]
    assert list(commands.unmeasured(pipeline)) == []
    assert commands.ask(
        Pipeline(MODEL, pipeline.sinks, EXTRACTIVE, retrieval=RetrievalConfig(min_similarity=0.99)), PURPLE
    )["abstained"]


def test_the_command_writes_a_table_a_picture_and_json(
    pipeline: Pipeline, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reranker = BedrockRerankingConfig(type="bedrock", model="a-reranker", endpoint_url=endpoint.url)
    answering = replace(pipeline, retrieval=RetrievalConfig(min_similarity=0.3), reranking=reranker)
    monkeypatch.setattr("glue_jobs.config.pipeline.load_config", lambda _: answering)
    few = tmp_path / "golden.jsonl"
    few.write_text("\n".join(GOLDEN.read_text().splitlines()[::8]))

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(command, ["pipeline.yaml", *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return str(result.stdout)

    shown = run(str(few), "--report", str(tmp_path / "report.html"))
    words = ("dense", "lexical", "hybrid", "nDCG@10", "abstention", "citation", "reranked by a-reranker to hybrid")
    assert all(word in shown for word in words)
    assert (tmp_path / "report.html").read_text().count("<svg") == 2
    figures: dict[str, Any] = json.loads(run(str(few), "--json"))
    assert figures["fingerprint"] == LocalEmbedder(MODEL).fingerprint
    assert figures["reranking"]["scored"] == figures["questions"]
    assert figures["reranking"]["is_a_gain"] is False  # it knows no meaning
    answer_figures = figures["answers"]["all"]
    assert (answer_figures["supported_values"], answer_figures["errors"]) == (1.0, 0)
    assert answer_figures["right"] > 0.6 < answer_figures["citation_precision"]
    proposed = [json.loads(line) for line in run("--draft", "12").splitlines()]
    texts = {row["id"]: str(row) for table in ("articles", "tickets") for row in rows(table)}
    assert len({str(draft["expected"]) for draft in proposed}) == 12
    assert all(draft["draft"] and draft["query"].endswith("?") for draft in proposed)
    assert all(
        phrase in texts[draft["expected"][0]["key"]["id"]] for draft in proposed for phrase in draft["answer_contains"]
    )


def test_questions_are_proposed_of_as_many_rows_as_there_are(pipeline: Pipeline) -> None:
    with commands.opened(pipeline, None) as index:
        ids = [draft["expected"][0]["key"]["id"] for draft in drafts(index.searcher(), 40, None)]
    assert len(ids) == len(set(ids)) == 40

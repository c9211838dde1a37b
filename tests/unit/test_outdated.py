"""What a changed template would cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embeddings.prices import Price
from glue_jobs.config.pipeline import parse_config
from glue_jobs.config.values import Substitution
from glue_jobs.status.outdated import Outdated, chunk_notes, of_counts, specs_of
from schemas.tables import ChunkConfig, DocumentConfig
from transforms.documents.planning import DocumentSpec

ARTICLES = DocumentSpec("a", DocumentConfig(template="{title}: {body}", chunk=ChunkConfig(max_tokens=100)))
TICKETS = DocumentSpec("t", DocumentConfig(template="{body}", chunk=ChunkConfig(max_tokens=1000)))
SPECS = {"a": ARTICLES, "t": TICKETS}


def test_documents_of_another_spec_are_counted_for_tables_that_make_documents() -> None:
    counted = {("a", "old"): 150, ("a", ARTICLES.digest): 50, ("t", "old"): 3, ("gone", "old"): 7}
    outdated = of_counts(SPECS, counted, 1.5, Price(20.0))
    assert outdated == Outdated(documents=153, of=203, texts=225 + 5, usd=round((22_500 + 5_000) / 1000 * 0.02, 6))
    sentence = outdated.sentence("pipeline.yaml", "vectors")
    assert sentence.startswith("153 of 203 documents were made by another template, chunking, language or metadata")
    assert "`ragstream rebuild pipeline.yaml vectors`" in sentence
    assert "about 230 texts for about $0.5500" in sentence


def test_a_language_makes_another_spec_and_none_leaves_the_digest() -> None:
    document = DocumentConfig(template="{title}", metadata=("a",))
    assert DocumentSpec("t", document).digest == "4345cc069abef350"
    german = document.model_copy(update={"language": "german"})
    assert DocumentSpec("t", german).digest != DocumentSpec("t", document).digest


def test_a_model_whose_price_is_not_known_costs_nobody_knows_what() -> None:
    outdated = of_counts(SPECS, {("a", "old"): 2}, 1.0, None)
    assert (outdated.usd, outdated.texts) == (None, 2)
    assert "at a price that is not known here" in outdated.sentence("p.yaml", "s")


@pytest.mark.parametrize(
    ("model", "dimensions", "beginnings"),
    [
        (
            "cohere.embed-english-v3",
            1024,
            ["table public.t: document.chunk.max_tokens is 1200, and the embedding model takes 512"],
        ),
        ("amazon.titan-embed-text-v2:0", 512, []),
    ],
)
def test_chunks_longer_than_the_model_takes_are_said_and_cut(
    model: str, dimensions: int, beginnings: list[str]
) -> None:
    document = {"template": "{a}", "chunk": {"max_tokens": 1200}}
    config = parse_config(
        json.dumps({
            "name": "p", "source": {"type": "files", "format": "kafka", "envelope": "debezium", "path": ["x.jsonl"]},
            "tables": [{"table": "public.t", "keys": ["id"], "document": document}], "lake": {"path": "lake"},
            "embedding": {"type": "bedrock", "model": model, "dimensions": dimensions}, "checkpoint": "checkpoint",
            "sinks": [{"type": "pgvector", "dsn": "postgresql://x/y", "table": "kb"}],
        }),
        "p.yaml",
        Substitution({}, Path("nowhere")),
    )  # fmt: skip
    notes = chunk_notes(config)
    assert [note.startswith(start) for note, start in zip(notes, beginnings, strict=True)] == [True] * len(beginnings)
    assert specs_of(config)["public.t"].document.chunk.max_tokens == (512 if beginnings else 1200)

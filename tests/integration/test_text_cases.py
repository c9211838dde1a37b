"""Texts that pipelines are known to stumble over, through the indexer, a model's wire format and a real store."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
from pydantic import SecretStr, TypeAdapter

from embeddings import EmbeddingConfig, open_embedder
from indexing.indexer import Indexer
from indexing.result import IndexResult
from local_stack.models.service import ModelService
from local_stack.servers.connect import request_json
from local_stack.servers.postgres import VectorStore
from schemas.tables import ChunkConfig, DocumentConfig
from sinks import open_sink
from sinks.pgvector.config import PgvectorConfig
from tests.feeding import CONTEXT
from tests.history import TABLE, ModelTable, as_record, key_of
from tests.stores import pgvector_store
from transforms.documents.planning import DocumentSpec

TITAN = {"type": "bedrock", "model": "amazon.titan-embed-text-v2:0", "dimensions": 256}
COHERE = {"type": "bedrock", "model": "cohere.embed-english-v3", "dimensions": 1024}
CHINESE = "好后原仓拒的请包收货有接须且内则出装否完库三绝必品并申天在来无损保商十要提退权到需持"


class Pipeline:
    """One table's changes into pgvector, by a model behind its own wire format."""

    def __init__(self, server: VectorStore, dsn: str, url: str) -> None:
        self.server, self.dsn, self.url = server, dsn, url
        self.table = ModelTable()

    def faults(self, **faults: Any) -> None:
        request_json(self.url, "POST", "/faults", faults)

    def index(self, texts: Sequence[str], model: dict[str, Any], most: int = 240) -> IndexResult:
        """Insert rows 1, 2, … with these texts, and index all changes so far in one batch."""
        adapter: TypeAdapter[EmbeddingConfig] = TypeAdapter(EmbeddingConfig)
        embedder = open_embedder(adapter.validate_python(model | {"endpoint_url": self.url}))
        document = DocumentConfig(template="{a}", chunk=ChunkConfig(max_tokens=most))
        config = PgvectorConfig(type="pgvector", dsn=SecretStr(self.dsn), table="kb")
        for number, text in enumerate(texts, 1):
            self.table.insert(number, text)
        with closing(open_sink(config, embedder.fingerprint, embedder.dimensions)) as sink:
            sink.prepare()
            indexer = Indexer(CONTEXT, {TABLE: DocumentSpec(TABLE, document)}, [sink], embedder, texts_at_once=8)
            return indexer.index([as_record(change) for change in self.table.changes])

    def texts(self) -> dict[str, list[str]]:
        """What a reader finds: the chunk texts of each row."""
        contents = pgvector_store(self.server, self.dsn).contents()
        return {key: [text for _, text, _ in chunks] for key, (_, chunks) in contents.items()}


@pytest.fixture
def pipeline(vectors: VectorStore, vectors_dsn: str, instant_model: ModelService) -> Iterator[Pipeline]:
    text_pipeline = Pipeline(vectors, vectors_dsn, instant_model.endpoint["endpoint_url"])
    text_pipeline.faults()
    yield text_pipeline
    text_pipeline.faults()


@pytest.mark.parametrize("spoil", ["null", "nulls", "zero", "short", "huge", "absent"])
@pytest.mark.parametrize("model", [TITAN, COHERE], ids=["a text a request", "texts packed"])
def test_a_text_without_a_vector_is_rejected_and_the_others_are_found(
    pipeline: Pipeline, model: dict[str, Any], spoil: str
) -> None:
    """k-NN#1461 and others: a model that answers nulls or zeros."""
    pipeline.faults(spoil_text="BAIT", spoil=spoil)
    result = pipeline.index(["Fresh milk comes on Tuesdays.", "BAIT milk", "Cheese comes on Thursdays."], model)
    assert [(reject.stage, reject.table) for _, reject in result.rejected] == [("embed", TABLE)]
    assert pipeline.texts().keys() == {key_of(1), key_of(3)}


def test_a_text_of_underestimated_tokens_is_found_its_older_version_not(pipeline: Pipeline) -> None:
    """OpenMetadata#29920: 8,192 tokens are fewer than 32,000 bytes of Chinese."""
    pipeline.index(["The first version says that refunds take ten days."], TITAN, most=8000)
    dense = "".join(random.Random(1).choices(CHINESE, k=10_000))
    pipeline.table.update_a(1, dense)
    assert pipeline.index([], TITAN, most=8000).rejected == []
    assert pipeline.texts() == {key_of(1): [dense]}


def test_chunks_are_cut_to_what_the_model_takes(pipeline: Pipeline) -> None:
    """llama_index#12592: Cohere cut off what was longer than 512 tokens, and nobody was told."""
    text = " ".join(f"The manual repeats in part {n} that trained staff alone may open the cover." for n in range(60))
    assert pipeline.index([text], COHERE, most=1200).rejected == []
    (chunks,) = pipeline.texts().values()
    assert max(map(len, chunks)) <= 2048
    assert " ".join(chunks) == text


def test_an_invisible_text_is_no_chunk_and_costs_nothing(pipeline: Pipeline) -> None:
    """paradedb#219: a row of zero-width characters answered a question."""
    blank = ["", " \t", "\n\n \u3000", "\u200b\ufeff\u2060", "\u00ad"]
    assert pipeline.index([*blank, "🙂🙂🙂", "...!!!---"], TITAN).rejected == []
    assert pipeline.texts() == {key_of(6): ["🙂🙂🙂"], key_of(7): ["...!!!---"]}

"""What every embedder must do, on each model family over the endpoint's wire format and on the model in process."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter
from pyspark.sql import SparkSession

from embeddings import Embedder, EmbeddingConfig, EmbeddingRejected, open_embedder
from embeddings.errors import EmbeddingRejectedError, EmbeddingUnavailableError
from embeddings.udf import embed_chunks
from local_stack.models.instant import instant_vector
from local_stack.models.minilm import minilm_folder
from schemas.errors import ConfigurationError
from tests.endpoint import Endpoint
from tests.waiting import eventually

FAMILIES = {
    "titan": {"type": "bedrock", "model": "amazon.titan-embed-text-v2:0", "dimensions": 512},
    "cohere": {"type": "bedrock", "model": "cohere.embed-multilingual-v3", "dimensions": 1024},
    "cohere-v4": {"type": "bedrock", "model": "cohere.embed-v4:0", "dimensions": 512},
    "titan-v1": {"type": "bedrock", "model": "amazon.titan-embed-text-v1", "dimensions": 1536},
    "nova": {"type": "bedrock", "model": "us.amazon.nova-2-multimodal-embeddings-v1:0", "dimensions": 1024},
    "tei": {"type": "sagemaker", "container": "tei", "endpoint": "tei-1", "model": "minilm", "dimensions": 384},
    "huggingface": {
        "type": "sagemaker", "container": "huggingface", "endpoint": "hf-1", "model": "minilm", "dimensions": 384,
        "pooling": "mean",
    },
    "jumpstart": {
        "type": "sagemaker", "container": "jumpstart", "endpoint": "jumpstart-1", "model": "minilm", "dimensions": 384,
    },
}  # fmt: skip
LOCAL = {"type": "local", "model": "all-MiniLM-L6-v2", "dimensions": 384}
AWKWARD = ["naïve café", "日本語のテキスト", "emoji 🦆", 'quotes " and \\', "a\u0000b", "line\nbreak", "x" * 1500]


def opened(config: dict[str, Any], **changes: Any) -> Embedder:
    adapter: TypeAdapter[EmbeddingConfig] = TypeAdapter(EmbeddingConfig)
    return open_embedder(adapter.validate_python(config | changes))


@pytest.fixture(params=[*FAMILIES, "local"])
def embedder(request: pytest.FixtureRequest, endpoint: Endpoint) -> Embedder:
    if request.param == "local":
        return opened(LOCAL, path=minilm_folder())
    return opened(FAMILIES[request.param], endpoint_url=endpoint.url)


@pytest.fixture(params=["titan", "cohere", "nova", "tei", "huggingface"])
def remote(request: pytest.FixtureRequest, endpoint: Endpoint) -> Embedder:
    return opened(FAMILIES[request.param], endpoint_url=endpoint.url)


def vector(embedding: object) -> np.ndarray[Any, np.dtype[np.float32]]:
    assert isinstance(embedding, np.ndarray)
    return embedding


# Every embedder


def test_it_passes_its_own_check(embedder: Embedder) -> None:
    embedder.check()


def test_vectors_are_float32_of_the_size_promised_and_in_order(embedder: Embedder) -> None:
    texts = ["one", "two", "three", "two"]
    vectors = [vector(embedding) for embedding in embedder.embed_documents(texts)]
    assert {(v.dtype, v.shape) for v in vectors} == {(np.dtype(np.float32), (embedder.dimensions,))}
    alone = [vector(embedder.embed_documents([text])[0]) for text in texts]
    assert all(np.array_equal(together, single) for together, single in zip(vectors, alone, strict=True))
    assert np.array_equal(vectors[1], vectors[3])
    assert not np.allclose(vectors[0], vectors[1])


def test_vectors_are_of_unit_length(embedder: Embedder) -> None:
    assert np.linalg.norm(vector(embedder.embed_documents(["some text"])[0])) == pytest.approx(1, abs=1e-5)


def test_no_text_costs_nothing(embedder: Embedder) -> None:
    before = embedder.counts()
    assert embedder.embed_documents([]) == []
    assert (embedder.counts() - before).texts == 0


def test_awkward_texts_have_vectors(embedder: Embedder) -> None:
    assert all(isinstance(embedding, np.ndarray) for embedding in embedder.embed_documents(AWKWARD))


def test_a_blank_text_is_rejected_alone(embedder: Embedder) -> None:
    first, blank, last = embedder.embed_documents(["first", " \n", "last"])
    assert isinstance(blank, EmbeddingRejected)
    assert blank.condition == "BLANK_TEXT"
    assert isinstance(first, np.ndarray)
    assert isinstance(last, np.ndarray)
    with pytest.raises(EmbeddingRejectedError):
        embedder.embed_query("")


def test_nothing_of_a_long_text_is_cut_off(embedder: Embedder) -> None:
    long = "The press may be opened by trained staff alone. " * 60
    vectors = [vector(e) for e in embedder.embed_documents([long, f"{long} The cook eats an apple.", long])]
    assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.array_equal(vectors[0], vectors[1])


def test_a_copy_from_another_process_gives_the_same_vectors(embedder: Embedder) -> None:
    copy: Embedder = pickle.loads(pickle.dumps(embedder))  # noqa: S301 - made on this line
    assert copy.fingerprint == embedder.fingerprint
    assert np.array_equal(vector(copy.embed_documents(["text"])[0]), vector(embedder.embed_documents(["text"])[0]))


def test_several_threads_may_use_one_embedder(embedder: Embedder) -> None:
    embeddings: dict[int, object] = {}

    def embed(number: int) -> None:
        embeddings[number] = embedder.embed_documents([f"text {number}"])[0]

    threads = [threading.Thread(target=embed, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = embedder.embed_documents([f"text {number}" for number in range(8)])
    assert all(np.array_equal(vector(embeddings[number]), vector(expected[number])) for number in range(8))


# Those with a provider


def test_equal_texts_are_sent_once_in_full_requests(remote: Embedder, endpoint: Endpoint) -> None:
    texts = [f"text {number % 200}" for number in range(1000)]
    before = remote.counts()
    vectors = remote.embed_documents(texts)
    spent, counted = remote.counts() - before, endpoint.counters()
    assert (spent.texts, counted["texts"], counted["distinct_texts"]) == (200, 200, 200)
    assert spent.requests == counted["requests"] == -(-200 // remote.max_items)
    assert spent.tokens in {0, counted["tokens"]}  # 0 where the provider does not say
    assert np.allclose(vector(vectors[205])[:384], instant_vector("text 5"), atol=1e-7)


@pytest.mark.parametrize(
    "faults",
    [
        {"throttle": 0.2},
        {"throttle": 10, "retry_after": 0.05},
        {"unavailable": 3, "not_ready": 3},
        {"error": 5},
        {"drop": 5},
        {"slow_ms": 20, "throttle": 5},
    ],
    ids=" ".join,
)
def test_faults_of_the_provider_delay_and_lose_nothing(
    remote: Embedder, endpoint: Endpoint, faults: dict[str, Any]
) -> None:
    texts = [f"text {number}" for number in range(120)]
    endpoint.faults(**faults)
    vectors = remote.embed_documents(texts)
    assert all(np.allclose(vector(v)[:384], instant_vector(t), atol=1e-7) for t, v in zip(texts, vectors, strict=True))
    assert endpoint.counters()["texts"] == 120


def test_a_throttled_text_is_not_a_rejected_one(remote: Embedder, endpoint: Endpoint) -> None:
    endpoint.faults(throttle=6)
    before = remote.counts()
    assert isinstance(remote.embed_documents(["patience"])[0], np.ndarray)
    spent = remote.counts() - before
    assert (spent.throttles, spent.failures, spent.texts) == (6, 0, 1)


def test_a_text_the_model_refuses_costs_no_other_its_vector(remote: Embedder, endpoint: Endpoint) -> None:
    endpoint.faults(refuse_text="text 42!")
    texts = [f"text {number}!" for number in range(96)]
    results = remote.embed_documents(texts)
    assert [t for t, e in zip(texts, results, strict=True) if isinstance(e, EmbeddingRejected)] == ["text 42!"]
    rejected = results[42]
    assert isinstance(rejected, EmbeddingRejected)
    assert rejected.condition == "MODEL_REFUSED_TEXT"
    assert "text 42" not in rejected.message


def test_a_text_the_model_always_fails_on_is_given_up_alone(remote: Embedder, endpoint: Endpoint) -> None:
    endpoint.faults(fail_text="text 3!")
    results = remote.embed_documents([f"text {number}!" for number in range(6)])
    assert [isinstance(embedding, EmbeddingRejected) for embedding in results] == [False] * 3 + [True] + [False] * 2
    assert isinstance(results[3], EmbeddingRejected)
    assert results[3].condition == "MODEL_FAILS_ON_TEXT"


def embedded_once_mended(remote: Embedder, text: str, mend: Callable[[], object]) -> object:
    """Ask for a text; what it takes is mended when two requests have failed."""
    before = remote.counts().failures
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(remote.embed_documents, [text])
        eventually(lambda: remote.counts().failures >= before + 2)
        mend()
        return asked.result()[0]


def test_a_model_that_fails_on_everything_for_a_while_is_waited_for(remote: Embedder, endpoint: Endpoint) -> None:
    endpoint.faults(error=1.0)
    assert isinstance(embedded_once_mended(remote, "after an outage", endpoint.faults), np.ndarray)


def test_a_server_that_is_away_is_waited_for(remote: Embedder, endpoint: Endpoint) -> None:
    remote.embed_documents(["before"])
    endpoint.service.kill()
    assert isinstance(embedded_once_mended(remote, "after", endpoint.service.start), np.ndarray)


def test_no_right_to_the_model_is_a_configuration_error_at_once(remote: Embedder, endpoint: Endpoint) -> None:
    endpoint.faults(deny=1.0)
    for ask in (remote.check, lambda: remote.embed_documents(["a", "b"]), lambda: remote.embed_query("a")):
        with pytest.raises(ConfigurationError, match="AccessDenied"):
            ask()


def test_a_question_waits_only_so_long(endpoint: Endpoint) -> None:
    embedder = opened(FAMILIES["titan"], endpoint_url=endpoint.url, query_timeout_seconds=1)
    endpoint.faults(throttle=1.0)
    with pytest.raises(EmbeddingUnavailableError):
        embedder.embed_query("anyone there?")


@pytest.mark.parametrize("family", FAMILIES)
def test_an_address_where_nobody_listens_is_told_by_check(family: str) -> None:
    embedder = opened(FAMILIES[family], endpoint_url="http://127.0.0.1:9", connect_timeout_seconds=0.5)
    with pytest.raises(ConfigurationError, match=r"does not answer at http://127\.0\.0\.1:9"):
        embedder.check()


@pytest.mark.parametrize("spoil", ["null", "nulls", "text", "huge", "zero", "short", "absent"])
def test_a_text_without_a_usable_vector_is_rejected_alone(remote: Embedder, endpoint: Endpoint, spoil: str) -> None:
    endpoint.faults(spoil_text="text 5!", spoil=spoil)
    texts = [f"text {number}!" for number in range(12)]
    results = remote.embed_documents(texts)
    assert [t for t, e in zip(texts, results, strict=True) if isinstance(e, EmbeddingRejected)] == ["text 5!"]
    rejected = results[5]
    assert isinstance(rejected, EmbeddingRejected)
    assert rejected.condition in {"BAD_VECTOR", "WRONG_VECTOR_LENGTH"}
    assert "text 5" not in rejected.message
    rest = [(t, e) for t, e in zip(texts, results, strict=True) if t != "text 5!"]
    assert all(np.allclose(vector(e)[:384], instant_vector(t), atol=1e-7) for t, e in rest)
    with pytest.raises(EmbeddingRejectedError):
        remote.embed_query("text 5!")


def test_a_model_without_usable_vectors_is_told_by_check(remote: Embedder, endpoint: Endpoint) -> None:
    for spoil in ("zero", "short", "null"):
        endpoint.faults(spoil_text="", spoil=spoil)
        for ask in (remote.check, lambda: remote.embed_documents(["a", "b"])):
            with pytest.raises(ConfigurationError, match="plain word"):
                ask()


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "nova"])  # its characters are fewer
def test_text_of_more_tokens_than_the_model_takes_is_embedded_in_parts(family: str, endpoint: Endpoint) -> None:
    dense = "好" * {"titan": 8_300, "titan-v1": 8_300, "cohere-v4": 128_050}.get(family, 650)
    embedder = opened(FAMILIES[family], endpoint_url=endpoint.url)
    dense_embedding, short = embedder.embed_documents([dense, "short"])
    half = len(dense) // 2
    mean = (instant_vector(dense[:half]) + instant_vector(dense[half:])) / 2
    assert np.allclose(vector(dense_embedding)[:384], mean / np.linalg.norm(mean), atol=1e-6)
    assert np.allclose(vector(short)[:384], instant_vector("short"), atol=1e-7)
    assert np.array_equal(vector(embedder.embed_documents([dense])[0]), vector(dense_embedding))
    refusing = opened(FAMILIES[family], endpoint_url=endpoint.url, truncation="none")
    rejected = refusing.embed_documents([dense])[0]
    assert isinstance(rejected, EmbeddingRejected)
    assert rejected.condition == "TEXT_TOO_LONG"


def test_long_text_is_taken_in_parts_or_cut_or_rejected_as_configured(endpoint: Endpoint) -> None:
    long = "word " * 409 + "and more"
    cohere = FAMILIES["cohere"]
    whole = opened(cohere, endpoint_url=endpoint.url).embed_documents([long])
    assert not np.allclose(vector(whole[0])[:384], instant_vector(long[:2048]), atol=1e-3)
    cut = opened(cohere, endpoint_url=endpoint.url, truncation="end").embed_documents([long])
    assert np.allclose(vector(cut[0])[:384], instant_vector(long[:2048]), atol=1e-7)
    kept = opened(cohere, endpoint_url=endpoint.url, truncation="none").embed_documents([long, "short"])
    assert isinstance(kept[0], EmbeddingRejected)
    assert kept[0].condition == "TEXT_TOO_LONG"
    assert isinstance(kept[1], np.ndarray)


# The pandas UDF


@pytest.mark.parametrize("remote", ["titan", "cohere"], indirect=True)  # a text a request, and many
def test_the_udf_embeds_a_column_packs_it_and_keeps_the_bad_apart(
    spark: SparkSession, remote: Embedder, endpoint: Endpoint
) -> None:
    endpoint.faults(throttle=3, refuse_text="text 7!")
    texts = [None, "", *(f"text {number % 960}!" for number in range(2000))]
    chunks = spark.createDataFrame([(row, text) for row, text in enumerate(texts)], "row long, chunk_text string")
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", 50)
    try:
        embedded = chunks.coalesce(1).withColumn("embedded", embed_chunks(remote)("chunk_text"))
        rows = {row.row: row.embedded for row in embedded.collect()}
    finally:
        spark.conf.unset("spark.sql.execution.arrow.maxRecordsPerBatch")
    assert rows[0].asDict() == {"embedding": None, "condition": None, "message": None}
    assert (rows[1].embedding, rows[1].condition) == (None, "BLANK_TEXT")
    assert {row for row, value in rows.items() if value.condition == "MODEL_REFUSED_TEXT"} == {9, 969, 1929}
    for row in (2, 500, 1500, 2001):
        assert np.allclose(rows[row].embedding[:384], instant_vector(str(texts[row])), atol=1e-7)
    counted = endpoint.counters()
    # The probe that confirms the refusal is the one text beside the 959 that have a vector.
    assert (counted["texts"], counted["distinct_texts"]) == (960, 960)


def test_the_bulk_path_fills_its_requests(spark: SparkSession, endpoint: Endpoint) -> None:
    embedder = opened(FAMILIES["cohere"], endpoint_url=endpoint.url)
    chunks = spark.range(3000, numPartitions=1).selectExpr("concat('text ', id) AS chunk_text")
    embedded = chunks.select(embed_chunks(embedder)("chunk_text").alias("embedded"))
    assert embedded.selectExpr("count(embedded.embedding) AS vectors").first() == (3000,)
    counted = endpoint.counters()
    assert counted["texts"] == 3000
    assert counted["texts"] / counted["requests"] / 96 >= 0.9

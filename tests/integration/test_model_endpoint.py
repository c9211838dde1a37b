"""The model endpoint over the real models: MiniLM's numbers, SmolLM2's words, and Bedrock's wire format by botocore."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import numpy as np
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError
from numpy.typing import NDArray
from tokenizers import Tokenizer

from embeddings import BedrockEmbeddingConfig, LocalEmbeddingConfig, open_embedder
from generation import BedrockGenerationConfig, Message
from generation.bedrock.generator import BedrockGenerator
from generation.errors import GenerationRejectedError, GenerationUnavailableError
from local_stack.models.embeddings import resized
from local_stack.models.minilm import minilm_folder, open_minilm, package_files
from local_stack.models.minilm_graph import HEADS, LAYERS, Weights, read_safetensors
from local_stack.models.service import ModelService
from reranking import BedrockRerankingConfig, open_reranker
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from mypy_boto3_bedrock_runtime.client import BedrockRuntimeClient

TITAN = "amazon.titan-embed-text-v2:0"
COHERE = "cohere.embed-english-v3"
TEXT_MODEL = "local.smollm2-135m-instruct"
SENTENCES = ["A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby."]

type Doubles = NDArray[np.float64]


@pytest.fixture
def url(model: ModelService) -> str:
    address = model.endpoint["endpoint_url"]
    post(f"{address}/faults", {})
    return address


@pytest.fixture
def bedrock(url: str) -> BedrockRuntimeClient:
    config = Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1}, read_timeout=120)
    return boto3.client("bedrock-runtime", region_name="us-east-1", endpoint_url=url, config=config)


@pytest.fixture
def generator(url: str) -> BedrockGenerator:
    return BedrockGenerator(
        BedrockGenerationConfig(type="bedrock", model=TEXT_MODEL, endpoint_url=url, timeout_seconds=3)
    )


def post(url: str, body: object) -> dict[str, Any]:
    with urllib.request.urlopen(url, data=json.dumps(body).encode(), timeout=60) as answer:  # noqa: S310 - loopback
        result: dict[str, Any] = json.load(answer)
        return result


def invoke(bedrock: BedrockRuntimeClient, model: str, **body: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(bedrock.invoke_model(modelId=model, body=json.dumps(body))["body"].read())
    return answer


# MiniLM


def test_the_graph_computes_what_the_published_weights_say() -> None:
    weights = read_safetensors(package_files() / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(package_files() / "tokenizer.json"))
    tokenizer.no_padding()
    texts = [*SENTENCES, "word " * 120, "naïve café 日本語"]
    for text, encoded in zip(texts, open_minilm().encode(texts), strict=True):
        expected = reference_vector(weights, tokenizer.encode(text).ids)
        assert np.abs(encoded.vector - expected).max() < 1e-6


def reference_vector(weights: Weights, ids: Sequence[int]) -> Doubles:
    """BERT with mean pooling and L2, as in its paper, in float64 and without any of onnxruntime's fused operators."""
    w = {name: tensor.astype(np.float64) for name, tensor in weights.items()}
    hidden = w["embeddings.word_embeddings.weight"][list(ids)] + w["embeddings.position_embeddings.weight"][: len(ids)]
    hidden = normal(w, "embeddings.LayerNorm", hidden + w["embeddings.token_type_embeddings.weight"][0])
    for layer in (f"encoder.layer.{number}" for number in range(LAYERS)):
        q, k, v = (heads(dense(w, f"{layer}.attention.self.{part}", hidden)) for part in ("query", "key", "value"))
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (shares / shares.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(hidden.shape)
        hidden = normal(
            w, f"{layer}.attention.output.LayerNorm", hidden + dense(w, f"{layer}.attention.output.dense", mixed)
        )
        active = gelu(dense(w, f"{layer}.intermediate.dense", hidden))
        hidden = normal(w, f"{layer}.output.LayerNorm", hidden + dense(w, f"{layer}.output.dense", active))
    pooled = hidden.mean(0)
    unit: Doubles = pooled / np.linalg.norm(pooled)
    return unit


def dense(w: dict[str, Doubles], name: str, values: Doubles) -> Doubles:
    result: Doubles = values @ w[f"{name}.weight"].T + w[f"{name}.bias"]
    return result


def normal(w: dict[str, Doubles], name: str, values: Doubles) -> Doubles:
    spread = np.sqrt(values.var(-1, keepdims=True) + 1e-12)
    result: Doubles = (values - values.mean(-1, keepdims=True)) / spread * w[f"{name}.weight"] + w[f"{name}.bias"]
    return result


def heads(values: Doubles) -> Doubles:
    return values.reshape(len(values), HEADS, -1).transpose(1, 0, 2)


def gelu(values: Doubles) -> Doubles:
    from math import erf

    result: Doubles = values * (1 + np.vectorize(erf)(values / np.sqrt(2))) / 2
    return result


def test_near_sentences_are_near_and_others_are_not() -> None:
    vectors = np.array([encoded.vector for encoded in open_minilm().encode(SENTENCES)])
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near == pytest.approx(0.755, abs=0.005)
    assert far < 0.1


def test_a_text_over_256_tokens_is_embedded_in_parts_and_never_cut() -> None:
    words = "alpha beta gamma delta " * 80
    short, longer, longest = open_minilm().encode([words[:600], words, words + "omega " * 50])
    assert short.tokens < 256 < longer.tokens < longest.tokens
    assert not np.allclose(longer.vector, longest.vector, atol=1e-4)
    assert np.linalg.norm(longest.vector) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "family",
    [{"model": TITAN, "dimensions": 512}, {"model": TITAN, "dimensions": 1024}, {"model": COHERE, "dimensions": 1024}],
)
def test_the_endpoint_serves_the_vectors_of_the_model_in_process(url: str, family: dict[str, Any]) -> None:
    remote = open_embedder(BedrockEmbeddingConfig(type="bedrock", endpoint_url=url, **family))
    local = open_embedder(
        LocalEmbeddingConfig(type="local", path=minilm_folder(), model="all-MiniLM-L6-v2", dimensions=384)
    )
    for far, near in zip(remote.embed_documents(SENTENCES), local.embed_documents(SENTENCES), strict=True):
        assert isinstance(far, np.ndarray)
        assert isinstance(near, np.ndarray)
        assert np.array_equal(far[:384], near)
        assert not far[384:].any()


def test_fewer_dimensions_keep_cosines_nearly() -> None:
    texts = [*SENTENCES, "My invoice is wrong.", "How do I reset my password?", "The printer is out of paper."]
    full = np.array([encoded.vector for encoded in open_minilm().encode(texts)])
    less = np.array([resized(vector, 256) for vector in full])
    assert np.allclose(np.linalg.norm(less, axis=1), 1, atol=1e-6)
    assert np.abs(full @ full.T - less @ less.T).max() < 0.15


# The wire format


@pytest.mark.parametrize(
    ("family", "body", "says"),
    [
        (TITAN, {"inputText": ""}, "expected minLength: 1"),
        (TITAN, {"inputText": "x" * 50_001}, "expected maxLength: 50000, actual: 50001"),
        (TITAN, {"inputText": "x", "dimensions": 384}, "#/dimensions"),
        (TITAN, {"texts": ["x"]}, "#/(inputText|texts)"),
        (COHERE, {"texts": ["x"] * 97, "input_type": "search_query"}, "maximum item count: 96, found: 97"),
        (COHERE, {"texts": [], "input_type": "search_query"}, "#/texts"),
        (COHERE, {"texts": ["x", " "], "input_type": "search_query"}, "#/texts/1"),
        (COHERE, {"texts": ["x" * 2049], "input_type": "search_query"}, "expected maxLength: 2048, actual: 2049"),
        (COHERE, {"texts": ["x"]}, "#/input_type"),
        (COHERE, {"texts": ["x"], "input_type": "search_query", "truncate": "LEFT"}, "#/truncate"),
        ("no.such-model", {"inputText": "x"}, "model identifier is invalid"),
    ],
)
def test_a_wrong_request_is_refused_as_bedrock_refuses_it(
    bedrock: BedrockRuntimeClient, family: str, body: dict[str, Any], says: str
) -> None:
    with pytest.raises(bedrock.exceptions.ValidationException, match=says):
        invoke(bedrock, family, **body)


@pytest.mark.parametrize(
    ("fault", "name", "status"),
    [
        ("throttle", "ThrottlingException", 429),
        ("not_ready", "ModelNotReadyException", 429),
        ("unavailable", "ServiceUnavailableException", 503),
        ("error", "InternalServerException", 500),
        ("deny", "AccessDeniedException", 403),
    ],
)
def test_a_fault_arrives_as_botocores_own_exception(
    bedrock: BedrockRuntimeClient, url: str, fault: str, name: str, status: int
) -> None:
    post(f"{url}/faults", {fault: 1, "retry_after": 7})
    with pytest.raises(getattr(bedrock.exceptions, name)) as error:
        invoke(bedrock, TITAN, inputText="x")
    answer = error.value.response["ResponseMetadata"]
    assert answer["HTTPStatusCode"] == status
    assert answer["HTTPHeaders"].get("retry-after") == ("7" if fault == "throttle" else None)
    assert invoke(bedrock, TITAN, inputText="x")["embedding"]


def test_an_unknown_fault_is_refused(url: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        post(f"{url}/faults", {"throtle": 1})


def test_both_forms_of_a_cohere_answer(bedrock: BedrockRuntimeClient) -> None:
    plain = invoke(bedrock, COHERE, texts=SENTENCES, input_type="search_document")
    typed = invoke(bedrock, COHERE, texts=SENTENCES, input_type="search_document", embedding_types=["float"])
    assert (plain["response_type"], typed["response_type"]) == ("embeddings_floats", "embeddings_by_type")
    assert plain["embeddings"] == typed["embeddings"]["float"]


def test_openais_form_gives_the_same_vectors(bedrock: BedrockRuntimeClient, url: str) -> None:
    numbers = post(f"{url}/v1/embeddings", {"model": "m", "input": SENTENCES})["data"]
    packed = post(f"{url}/v1/embeddings", {"model": "m", "input": SENTENCES[0], "encoding_format": "base64"})["data"]
    titan = invoke(bedrock, TITAN, inputText=SENTENCES[0], dimensions=512)["embedding"]
    assert [entry["index"] for entry in numbers] == [0, 1, 2]
    assert numbers[0]["embedding"] == titan[:384]
    assert np.array_equal(np.frombuffer(base64.b64decode(packed[0]["embedding"]), np.float32), np.float32(titan[:384]))


def test_late_interaction_puts_the_answer_before_other_texts(url: str) -> None:
    reranker = open_reranker(
        BedrockRerankingConfig(type="bedrock", model="amazon.rerank-v1:0", endpoint_url=url, timeout_seconds=30)
    )
    texts = [
        "The printer is out of paper.",
        "To choose a new password, follow the link in the mail.",
        "Invoices are sent on the first of the month.",
    ]
    asked = ["How do I reset my password?", "when is my bill due"]
    best = [max(zip(reranker.rerank(question, texts), texts, strict=True))[1] for question in asked]
    assert best == texts[1:]


# SmolLM2


def test_converse_answers_with_text_and_its_cost(generator: BedrockGenerator) -> None:
    answer = generator.converse([Message("user", "What is the capital of France?")], system="Answer in one sentence.")
    assert "Paris" in answer.text
    assert answer.stop_reason == "end_turn"
    assert answer.input_tokens > 10
    assert answer.output_tokens > 3


def test_an_answer_ends_at_its_limit(generator: BedrockGenerator) -> None:
    answer = generator.converse([Message("user", "Tell a long story about the sea.")], max_tokens=8)
    assert (answer.stop_reason, answer.output_tokens) == ("max_tokens", 8)


def test_a_prompt_that_does_not_fit_is_refused_before_any_text(generator: BedrockGenerator) -> None:
    with pytest.raises(GenerationRejectedError):
        generator.converse([Message("user", "sea " * 6000)])


@pytest.mark.parametrize(
    "messages",
    [[], [("assistant", "x")], [("user", "x"), ("user", "y")], [("user", " ")]],
    ids=["none", "assistant first", "not alternating", "blank"],
)
def test_a_wrong_conversation_is_refused(bedrock: BedrockRuntimeClient, messages: list[tuple[str, str]]) -> None:
    turns: Any = [{"role": role, "content": [{"text": text}]} for role, text in messages]
    with pytest.raises(ClientError, match="ValidationException"):
        bedrock.converse(modelId=TEXT_MODEL, messages=turns)


def test_an_answer_is_retried_until_its_time_is_up(generator: BedrockGenerator, url: str) -> None:
    question = [Message("user", "Hello")]
    post(f"{url}/faults", {"throttle": 1, "drop": 1})
    assert generator.converse(question, max_tokens=3).output_tokens == 3
    post(f"{url}/faults", {"error": 1.0})
    with pytest.raises(GenerationUnavailableError, match="InternalServerException"):
        generator.converse(question)


def test_botocore_reads_an_error_within_a_stream(bedrock: BedrockRuntimeClient, url: str) -> None:
    post(f"{url}/faults", {"stream_error": 1})
    events = bedrock.converse_stream(
        modelId=TEXT_MODEL, messages=[{"role": "user", "content": [{"text": "Count to ten."}]}]
    )["stream"]
    with pytest.raises(EventStreamError, match="modelStreamErrorException"):
        list(events)


def test_a_reader_who_hangs_up_frees_the_model(bedrock: BedrockRuntimeClient, generator: BedrockGenerator) -> None:
    stream = bedrock.converse_stream(
        modelId=TEXT_MODEL,
        messages=[{"role": "user", "content": [{"text": "Write a very long story about the sea."}]}],
        inferenceConfig={"maxTokens": 2000},
    )["stream"]
    next(iter(stream))
    stream.close()
    assert generator.converse([Message("user", "Hello")], max_tokens=3).output_tokens == 3


def test_a_text_model_that_may_not_be_used_is_told_by_check(generator: BedrockGenerator, url: str) -> None:
    generator.check()
    post(f"{url}/faults", {"deny": 1})
    with pytest.raises(ConfigurationError, match="AccessDenied"):
        generator.check()


# The process


def test_it_stops_at_once_and_leaves_no_port(tmp_path: Path) -> None:
    with ModelService(tmp_path / "instant", mode="instant") as service:
        address = service.endpoint["endpoint_url"]
        post(f"{address}/reset", {})
        service.stop()
        wait: Callable[[], object] = lambda: urllib.request.urlopen(f"{address}/health", timeout=1)  # noqa: S310, E731
        with pytest.raises(urllib.error.URLError):
            wait()

"""What the model families write and read, and the configuration that names them."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from embeddings import BedrockEmbeddingConfig, EmbeddingConfig, open_embedder
from embeddings.bedrock.codecs import CODECS, CohereEmbedV3, CohereEmbedV4, TitanTextV2, base_model_id, codec_for
from embeddings.bedrock.embedder import BedrockEmbedder
from embeddings.errors import ModelAnswerError
from embeddings.protocol import EmbeddingRejected, Purpose, Truncation
from embeddings.vectors import BAD_VECTOR, WRONG_LENGTH, checked
from schemas.errors import ConfigurationError

TITAN = "amazon.titan-embed-text-v2:0"
COHERE = "cohere.embed-english-v3"


def config(**changes: Any) -> BedrockEmbeddingConfig:
    return BedrockEmbeddingConfig.model_validate({"type": "bedrock", "model": TITAN, "dimensions": 512} | changes)


@pytest.mark.parametrize(
    ("model", "codec"),
    [
        (TITAN, TitanTextV2),
        (COHERE, CohereEmbedV3),
        ("eu.cohere.embed-multilingual-v3", CohereEmbedV3),
        ("us.amazon.titan-embed-text-v2:0", TitanTextV2),
        (f"arn:aws:bedrock:us-east-1::foundation-model/{TITAN}", TitanTextV2),
        (f"arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.{COHERE}", CohereEmbedV3),
    ],
)
def test_a_model_is_known_by_its_id_its_profile_or_its_arn(model: str, codec: type) -> None:
    assert isinstance(codec_for(model), codec)
    assert base_model_id(model) in {TITAN, COHERE, "cohere.embed-multilingual-v3"}


def test_an_unknown_family_is_a_configuration_error_that_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError) as error:
        codec_for("meta.llama3")
    assert all(prefix in error.value.hint for prefix in CODECS)


def test_titan_sends_one_text_with_its_size() -> None:
    body = TitanTextV2().request(["naïve \ud800"], Purpose.QUERY, 256, Truncation.END)
    assert json.loads(body) == {"inputText": "naïve \ud800", "dimensions": 256, "normalize": True}


def test_cohere_sends_its_texts_with_their_purpose() -> None:
    body = CohereEmbedV3().request(["a", "b"], Purpose.DOCUMENT, 1024, Truncation.NONE)
    assert json.loads(body) == {"texts": ["a", "b"], "input_type": "search_document", "truncate": "NONE"}
    query = CohereEmbedV3().request(["a"], Purpose.QUERY, 1024, Truncation.END)
    assert json.loads(query) == {"texts": ["a"], "input_type": "search_query", "truncate": "END"}


@pytest.mark.parametrize(
    "answer",
    [
        {"embedding": [0.5, -1], "inputTextTokenCount": 2},
        {"embeddingsByType": {"float": [0.5, -1]}, "inputTextTokenCount": 2},
        {"embedding": [9, 9], "embeddingsByType": {"float": [0.5, -1]}},
    ],
    ids=["plain", "by type alone", "both"],
)
def test_titan_answers_in_two_forms(answer: dict[str, Any]) -> None:
    assert TitanTextV2().vectors(json.dumps(answer).encode()) == [[0.5, -1]]


@pytest.mark.parametrize("rows", [[[1, 2], [3, 4]], {"float": [[1, 2], [3, 4]], "int8": [[0, 0]]}])
def test_cohere_answers_in_two_forms(rows: object) -> None:
    vectors = CohereEmbedV3().vectors(json.dumps({"embeddings": rows, "texts": ["a", "b"]}).encode())
    assert vectors == [[1, 2], [3, 4]]


@pytest.mark.parametrize("body", [b"<html>secret", b'["secret"]', b'{"embedding": [NaN, 1]}'])
def test_an_answer_of_another_shape_says_so_without_quoting_it(body: bytes) -> None:
    for codec in (TitanTextV2(), CohereEmbedV3()):
        with pytest.raises(ModelAnswerError) as error:
            codec.vectors(body)
        assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("numbers", "condition"),
    [
        (None, BAD_VECTOR),
        ([], BAD_VECTOR),
        ({"float": [0.6, 0.8]}, BAD_VECTOR),
        ("0.6 0.8", BAD_VECTOR),
        (["secret", 1], BAD_VECTOR),
        ([[1], [1, 2]], BAD_VECTOR),
        ([None, None], BAD_VECTOR),
        ([0, 0], BAD_VECTOR),
        ([1e-30, 0], BAD_VECTOR),
        ([1e999, 1], BAD_VECTOR),
        ([float("nan"), 1], BAD_VECTOR),
        ([1, 2, 3], WRONG_LENGTH),
        ([[0.6, 0.8]], WRONG_LENGTH),
    ],
    ids=repr,
)
def test_what_is_no_vector_of_the_right_length_rejects_its_text(numbers: object, condition: str) -> None:
    rejection = checked(numbers, 2)
    assert isinstance(rejection, EmbeddingRejected)
    assert rejection.condition == condition
    assert "secret" not in rejection.message


def test_a_vector_is_float32_of_the_length_promised() -> None:
    vector = checked([0.6, 0.8], 2)
    assert isinstance(vector, np.ndarray)
    assert np.array_equal(vector, np.array([0.6, 0.8], np.float32))
    assert vector.dtype == np.float32


def test_size_the_model_does_not_offer_is_refused_with_those_it_does() -> None:
    with pytest.raises(ValidationError, match="offers 256, 512, 1024"):
        config(dimensions=384)
    with pytest.raises(ValidationError, match="no codec"):
        config(model="meta.llama3")


def test_the_fingerprint_names_what_a_vector_depends_on_and_nothing_else() -> None:
    fingerprint = open_embedder(config()).fingerprint
    assert fingerprint == (
        "model=amazon.titan-embed-text-v2:0;dimensions=512;purpose=document;truncation=end/50000;normalisation=unit"
    )
    routes = [
        config(region="eu-west-1"),
        config(model=f"us.{TITAN}"),
        config(endpoint_url="http://127.0.0.1:1"),
        config(requests_in_flight=2),
    ]
    assert {BedrockEmbedder(route).fingerprint for route in routes} == {fingerprint}
    others = [
        config(dimensions=256),
        config(truncation="none"),
        config(max_chars=10),
        config(model=COHERE, dimensions=1024),
    ]
    assert len({fingerprint, *(BedrockEmbedder(other).fingerprint for other in others)}) == 5


def test_an_embedder_travels_as_its_configuration() -> None:
    embedder = open_embedder(config())
    copy = pickle.loads(pickle.dumps(embedder))  # noqa: S301 - made one line above
    assert (copy.fingerprint, copy.dimensions, copy.max_items) == (embedder.fingerprint, 512, 1)


def test_the_type_chooses_the_provider() -> None:
    adapter: TypeAdapter[EmbeddingConfig] = TypeAdapter(EmbeddingConfig)
    local = {"type": "local", "path": "/models/x", "model": "x", "dimensions": 384}
    assert open_embedder(adapter.validate_python(local)).dimensions == 384
    with pytest.raises(ValidationError, match="'bedrock', 'sagemaker', 'local'"):
        adapter.validate_python({"type": "openai"})


def test_a_secret_key_is_not_printed() -> None:
    shown = repr(config(access_key="AKIA", secret_key="hunter2"))
    assert "hunter2" not in shown


def test_cohere_v4_sends_its_size_and_cuts_at_the_right() -> None:
    body = json.loads(CohereEmbedV4().request(["a", "b"], Purpose.QUERY, 512, Truncation.END))
    assert (body["output_dimension"], body["truncate"], body["input_type"]) == (512, "RIGHT", "search_query")

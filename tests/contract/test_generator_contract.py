"""What every text model's client must do, over the endpoint's wire format, whole and in pieces."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from generation import GeneratedAnswer, Generator, Message, StopReason, TextModelConfig, open_generator
from generation.errors import GenerationRejectedError, GenerationUnavailableError
from retrieval.fusion import Ranked
from retrieval.generative import GenerativeAnswerer
from schemas.errors import ConfigurationError, PipelineError
from sinks.search import Hit, Question
from tests.endpoint import Endpoint

KINDS: dict[str, dict[str, Any]] = {
    "bedrock": {"type": "bedrock", "model": "amazon.nova-lite-v1:0"},
    "tgi": {"type": "sagemaker", "endpoint": "tgi-1", "model": "a-model"},
    "tgi inputs": {"type": "sagemaker", "endpoint": "tgi-1", "model": "a-model", "format": "inputs"},
    "lmi inputs": {
        "type": "sagemaker", "endpoint": "lmi-1", "model": "a-model", "format": "inputs", "chat_template": "chatml",
    },
}  # fmt: skip
QUESTION = [Message("user", "one two three four five")]
LONG = [Message("user", "word " * 200)]


def opened(config: dict[str, Any], endpoint: Endpoint, **changes: Any) -> Generator:
    adapter: TypeAdapter[TextModelConfig] = TypeAdapter(TextModelConfig)
    return open_generator(
        adapter.validate_python({"endpoint_url": endpoint.url, "timeout_seconds": 5} | config | changes)
    )


@pytest.fixture(params=[*KINDS])
def generator(request: pytest.FixtureRequest, endpoint: Endpoint) -> Generator:
    return opened(KINDS[request.param], endpoint)


def whole(generator: Generator, messages: list[Message], **options: Any) -> GeneratedAnswer:
    return generator.converse(messages, **options)


def streamed(generator: Generator, messages: list[Message], **options: Any) -> GeneratedAnswer:
    with generator.stream(messages, **options) as stream:
        pieces = list(stream)
        assert "".join(pieces).strip() == stream.answer.text.strip()
        return stream.answer


type Ask = Callable[..., GeneratedAnswer]
BOTH = pytest.mark.parametrize("ask", [whole, streamed])


@BOTH
def test_an_answer_has_its_text_its_end_and_its_cost(generator: Generator, ask: Ask) -> None:
    answer = ask(generator, QUESTION, system="be brief")
    assert answer.text.strip() == "one two three four five"
    assert (answer.stop_reason, answer.is_refusal, answer.refusal) == (StopReason.END_TURN, False, "")
    assert answer.input_tokens == 0 or answer.input_tokens >= 7  # TGI does not say, of a prompt answered whole
    assert answer.output_tokens == 5


@BOTH
def test_an_answer_ends_at_its_limit_and_says_so(generator: Generator, ask: Ask) -> None:
    answer = ask(generator, QUESTION, max_tokens=2)
    assert (answer.text.strip(), answer.stop_reason, answer.output_tokens) == ("one two", StopReason.MAX_TOKENS, 2)


@BOTH
def test_turns_before_the_last_one_are_told(generator: Generator, ask: Ask) -> None:
    before = [Message("user", "what is red"), Message("assistant", "a kite is")]
    alone = ask(generator, QUESTION).input_tokens
    assert alone == 0 or ask(generator, [*before, *QUESTION]).input_tokens >= alone + 6


@BOTH
def test_text_arrives_as_it_was_written(generator: Generator, ask: Ask) -> None:
    awkward = 'naïve 日本語 🦆 "quotes" \\ back data: {"x":1} [DONE] </s>'
    assert ask(generator, [Message("user", awkward)]).text.split() == awkward.split()


def test_a_stream_sends_nothing_before_it_is_read(generator: Generator, endpoint: Endpoint) -> None:
    stream = generator.stream(QUESTION)
    assert endpoint.counters()["generations"] == 0
    assert stream.answer.output_tokens == 5
    assert endpoint.counters()["generations"] == 1


def test_pieces_come_one_by_one(generator: Generator) -> None:
    with generator.stream(LONG) as stream:
        assert len(list(stream)) > 100


def test_a_reader_who_stops_frees_the_model(generator: Generator) -> None:
    with generator.stream(LONG) as stream:
        assert next(iter(stream)).strip() == "word"
    with pytest.raises(RuntimeError, match="closed"):
        _ = stream.answer
    assert generator.converse(QUESTION).output_tokens == 5


@BOTH
@pytest.mark.parametrize(
    "faults",
    [
        {"throttle": 2},
        {"throttle": 1, "retry_after": 0.05},
        {"unavailable": 1, "not_ready": 1},
        {"error": 2},
        {"drop": 2},
    ],
    ids=" ".join,
)
def test_faults_before_an_answer_are_tried_again(
    generator: Generator, endpoint: Endpoint, ask: Ask, faults: dict[str, Any]
) -> None:
    endpoint.faults(**faults)
    assert ask(generator, QUESTION).output_tokens == 5
    assert endpoint.counters()["generations"] == 1


@BOTH
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_gives_no_answer_is_given_up_in_time(kind: str, endpoint: Endpoint, ask: Ask) -> None:
    endpoint.faults(error=1.0)
    generator = opened(KINDS[kind], endpoint, timeout_seconds=0.5)
    with pytest.raises(GenerationUnavailableError):
        ask(generator, QUESTION)


def test_a_stream_that_breaks_off_is_not_begun_again(generator: Generator, endpoint: Endpoint) -> None:
    endpoint.faults(stream_error=1, stream_error_after=2)
    stream = generator.stream(QUESTION)
    pieces = iter(stream)
    assert [next(pieces).strip(), next(pieces).strip()] == ["one", "two"]
    with pytest.raises(GenerationUnavailableError):
        next(pieces)
    assert endpoint.counters()["generations"] <= 1
    endpoint.faults(stream_error=1, stream_error_after=0)
    assert streamed(generator, QUESTION).output_tokens == 5


@BOTH
def test_a_conversation_that_the_model_refuses_is_rejected_at_once(
    generator: Generator, endpoint: Endpoint, ask: Ask
) -> None:
    endpoint.faults(refuse_text="five")
    with pytest.raises(GenerationRejectedError) as refused:
        ask(generator, QUESTION)
    assert "five" not in str(refused.value)


@BOTH
def test_no_right_to_the_model_is_a_configuration_error(generator: Generator, endpoint: Endpoint, ask: Ask) -> None:
    endpoint.faults(deny=1.0)
    with pytest.raises(ConfigurationError):
        ask(generator, QUESTION)
    with pytest.raises(ConfigurationError):
        generator.check()


def test_check_says_where_nobody_answers(endpoint: Endpoint) -> None:
    for config in KINDS.values():
        away = opened(config, endpoint, endpoint_url="http://127.0.0.1:9", timeout_seconds=0.2)
        with pytest.raises(ConfigurationError, match=r"http://127\.0\.0\.1:9"):
            away.check()


def test_check_passes_and_a_copy_answers_too(generator: Generator) -> None:
    generator.check()
    copy: Generator = pickle.loads(pickle.dumps(generator))  # noqa: S301 - made on this line
    assert copy.model == generator.model
    assert copy.converse(QUESTION).text == generator.converse(QUESTION).text


def test_several_threads_may_ask_at_once(generator: Generator) -> None:
    asked = [[Message("user", f"number {number}")] for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(generator.converse, asked))
    assert [answer.text.strip() for answer in answers] == [f"number {number}" for number in range(8)]


# Guardrails of Bedrock

GUARDED = KINDS["bedrock"] | {"guardrail": {"id": "gr-1", "version": "2"}}


@BOTH
def test_a_guardrail_on_the_question_is_a_refusal_with_its_rule(endpoint: Endpoint, ask: Ask) -> None:
    endpoint.faults(guard_question="three")
    answer = ask(opened(GUARDED, endpoint), QUESTION)
    assert (answer.stop_reason, answer.is_refusal) == (StopReason.GUARDRAIL, True)
    assert answer.refusal == "topic Investment advice (input)"
    assert endpoint.counters()["generations"] == 0
    assert not ask(opened(KINDS["bedrock"], endpoint), QUESTION).is_refusal


@BOTH
def test_a_guardrail_on_the_answer_is_a_refusal_that_quotes_nothing(endpoint: Endpoint, ask: Ask) -> None:
    endpoint.faults(guard_answer="four")
    answer = ask(opened(GUARDED, endpoint), QUESTION)
    assert answer.is_refusal
    assert answer.refusal == "sensitive information EMAIL (output)"


@BOTH
def test_reasoning_and_citations_are_no_part_of_the_text(endpoint: Endpoint, ask: Ask) -> None:
    endpoint.faults(reasoning=True)
    assert ask(opened(KINDS["bedrock"], endpoint), QUESTION).text.strip() == "one two three four five"


@pytest.mark.parametrize("version", ["0", "latest", ""])
def test_a_guardrails_version_is_a_number_or_draft(endpoint: Endpoint, version: str) -> None:
    with pytest.raises((ValueError, PipelineError), match="version"):
        opened(GUARDED, endpoint, guardrail={"id": "gr-1", "version": version})


def test_an_answerer_says_that_a_guardrail_refused_and_cites_nothing(endpoint: Endpoint) -> None:
    endpoint.faults(guard_question="three")
    hit = Hit("d", "public.t", {"id": 1}, "c", 0, "a row that says three", {}, 0.9, 0.9)
    answerer = GenerativeAnswerer(opened(GUARDED, endpoint))
    draft = answerer.draft(Question("what?", np.zeros(3, np.float32)), [Ranked(hit, 0.9)])
    assert (draft.text, draft.cites) == ("", ())
    assert "topic Investment advice (input)" in draft.refusal

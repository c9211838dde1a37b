"""What every text model's client must do, over the endpoint's wire format, whole and in pieces."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from generation import (
    GeneratedAnswer,
    Generator,
    Message,
    StopReason,
    TextModelConfig,
    Tool,
    ToolCall,
    ToolResult,
    open_generator,
)
from generation.errors import GenerationRejectedError, GenerationUnavailableError
from retrieval.answering.generative import GenerativeAnswerer
from retrieval.ranking.fusion import Ranked
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
        replies = list(pool.map(generator.converse, asked))
    assert [reply.text.strip() for reply in replies] == [f"number {number}" for number in range(8)]


# Tools: the local endpoint calls one by rules, and writes the inputs that a test asks for

OPENED = Tool(
    "opened_since",
    "tickets opened since a day",
    {
        "type": "object",
        "properties": {
            "since": {"type": "string", "format": "date", "description": "the first day"},
            "most": {"type": "integer", "description": "how many"},
        },
        "required": ["since", "most"],
        "additionalProperties": False,
    },
)
ASKED = [Message("user", "the first 20 since 2026-11-01")]
WITHOUT_PLACE = {name for name, config in KINDS.items() if config.get("format") == "inputs"}
TAKING_TOOLS = {name: config for name, config in KINDS.items() if name not in WITHOUT_PLACE}
TAKING_TOOLS["lmi"] = {"type": "sagemaker", "endpoint": "lmi-1", "model": "a-model"}


@pytest.fixture(params=[*TAKING_TOOLS])
def caller(request: pytest.FixtureRequest, endpoint: Endpoint) -> Generator:
    return opened(TAKING_TOOLS[request.param], endpoint)


@BOTH
def test_a_tool_call_is_answered_with_its_result(caller: Generator, ask: Ask) -> None:
    assert caller.takes_tools
    answer = ask(caller, ASKED, tools=[OPENED])
    (call,) = answer.calls
    assert (call.name, call.input) == ("opened_since", {"since": "2026-11-01", "most": 20})
    assert (answer.stop_reason, answer.is_refusal) == (StopReason.TOOL_USE, False)
    result = ToolResult(call.id, "there were five")
    done = ask(caller, [*ASKED, Message("assistant", "", (call,)), Message("user", "", (), (result,))], tools=[OPENED])
    assert (done.text.strip(), done.calls, done.stop_reason) == ("there were five", (), StopReason.END_TURN)


@BOTH
def test_a_question_for_no_tool_is_answered(caller: Generator, ask: Ask) -> None:
    answer = ask(caller, QUESTION, tools=[OPENED])
    assert (answer.text.strip(), answer.calls) == ("one two three four five", ())


@BOTH
@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("{}", {}),
        ('{"since": "2026-11-01\\u0000\\u2028", "x": {"y": [1, 2.5, null, true]}}',
         {"since": "2026-11-01\0\u2028", "x": {"y": [1, 2.5, None, True]}}),
        ('{"since": "naïve 日本語 🦆", "most": -9007199254740993}', {"since": "naïve 日本語 🦆", "most": -9007199254740993}),
        ('{"since": ', None),
        ("DROP TABLE tickets", None),
        ('["2026-11-01", 20]', None),
        ("7", None),
    ],
)  # fmt: skip
def test_an_input_is_the_object_that_the_model_wrote_or_none(
    caller: Generator, endpoint: Endpoint, ask: Ask, written: str, read: object
) -> None:
    endpoint.faults(tool_inputs=[written])
    (call,) = ask(caller, ASKED, tools=[OPENED]).calls
    assert (call.name, call.input) == ("opened_since", read)


@BOTH
def test_a_name_that_was_not_offered_is_passed_on_unchecked(caller: Generator, endpoint: Endpoint, ask: Ask) -> None:
    endpoint.faults(tool_inputs=["{}"], tool_name="run_sql")
    assert [call.name for call in ask(caller, ASKED, tools=[OPENED]).calls] == ["run_sql"]


@pytest.mark.parametrize("kind", TAKING_TOOLS)
def test_a_stream_that_breaks_off_within_a_call_gives_no_call(kind: str, endpoint: Endpoint) -> None:
    endpoint.faults(stream_error=1.0, stream_error_after=3)
    stream = opened(TAKING_TOOLS[kind], endpoint, timeout_seconds=0.5).stream(ASKED, tools=[OPENED])
    with pytest.raises(GenerationUnavailableError):
        _ = stream.answer


@BOTH
@pytest.mark.parametrize("kind", sorted(WITHOUT_PLACE))
def test_a_form_without_tools_says_so_and_leaves_them_out(kind: str, endpoint: Endpoint, ask: Ask) -> None:
    generator = opened(KINDS[kind], endpoint)
    assert not generator.takes_tools
    assert ask(generator, ASKED, tools=[OPENED]).calls == ()


def test_a_guardrail_looks_at_what_a_tool_gave(endpoint: Endpoint) -> None:
    endpoint.faults(guard_question="secret plan")
    guarded = opened(GUARDED, endpoint)
    call = ToolCall("tooluse_1", "opened_since", {})
    messages = [
        *ASKED,
        Message("assistant", "", (call,)),
        Message("user", "", (), (ToolResult(call.id, "secret plan"),)),
    ]
    assert guarded.converse(messages, tools=[OPENED]).is_refusal


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

"""Text generation on Amazon Bedrock, by Converse and ConverseStream, with one retry layer."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from embeddings.bedrock.runtime import bedrock_outcomes
from embeddings.clients import open_client
from embeddings.outcomes import Unanswered
from generation.attempts import Pieces, answered, check_answers, spending_of, streamed
from generation.bedrock import content, guardrails
from generation.protocol import AnswerStream, GeneratedAnswer, Message, StopReason, Tool, ToolCall

if TYPE_CHECKING:
    from mypy_boto3_bedrock_runtime.client import BedrockRuntimeClient

    from generation.bedrock.config import BedrockGenerationConfig


class BedrockGenerator:
    """A `Generator` over Converse. Pickles as its configuration; a process opens one client."""

    def __init__(self, config: BedrockGenerationConfig) -> None:
        self._config = config

    @property
    def model(self) -> str:
        """The model's id."""
        return self._config.model

    @property
    def takes_tools(self) -> bool:
        """Converse has a place for them; `check` does not try whether the model can use them."""
        return True

    def converse(
        self,
        messages: Sequence[Message],
        *,
        system: str = "",
        max_tokens: int | None = None,
        tools: Sequence[Tool] = (),
    ) -> GeneratedAnswer:
        """Return the answer to a conversation; see `Generator`."""
        request = self._request(messages, system, max_tokens, tools)
        spending = spending_of(self._config, messages, system, max_tokens, tools)
        return answered(functools.partial(self._attempt, request), self._config.timeout_seconds, spending)

    def stream(
        self,
        messages: Sequence[Message],
        *,
        system: str = "",
        max_tokens: int | None = None,
        tools: Sequence[Tool] = (),
    ) -> AnswerStream:
        """Return the answer as it comes; see `Generator`."""
        request = self._request(messages, system, max_tokens, tools)
        spending = spending_of(self._config, messages, system, max_tokens, tools)
        return AnswerStream(streamed(functools.partial(self._pieces, request), self._config.timeout_seconds, spending))

    def check(self) -> None:
        """Ask for one word; see `Generator`."""
        check_answers(
            self, self._config.where, "generation.model, generation.region, generation.endpoint_url and the guardrail"
        )

    def _request(
        self, messages: Sequence[Message], system: str, max_tokens: int | None, tools: Sequence[Tool]
    ) -> dict[str, Any]:
        config = self._config
        request: dict[str, Any] = {
            "modelId": config.model,
            "messages": [content.turn_of(message) for message in messages],
            "system": [{"text": system}] if system else [],
            "inferenceConfig": {"maxTokens": max_tokens or config.max_tokens, "temperature": config.temperature},
        }
        if tools:
            request["toolConfig"] = content.tool_config(tools)
        if config.guardrail is not None:
            request["guardrailConfig"] = {
                "guardrailIdentifier": config.guardrail.id,
                "guardrailVersion": config.guardrail.version,
                "trace": "enabled",
            }
        return request

    def _attempt(self, request: Mapping[str, Any]) -> GeneratedAnswer:
        with bedrock_outcomes(self._config, "generation"):
            answer: Any = _client(self._config).converse(**request)
        text, calls = content.text_and_calls(answer["output"]["message"]["content"])
        return _answer(text, calls, answer["stopReason"], answer)

    def _pieces(self, request: Mapping[str, Any]) -> Pieces:
        collected = content.Collected()
        stop_reason = ""
        metadata: Mapping[str, Any] = {}
        with bedrock_outcomes(self._config, "generation"):
            events: Any = _client(self._config).converse_stream(**request)["stream"]
            with closing(events):
                for event in events:
                    if piece := collected.add(event):
                        yield piece
                    stop_reason = event.get("messageStop", {}).get("stopReason", stop_reason)
                    metadata = event.get("metadata", metadata)
        if not stop_reason:
            raise Unanswered("IncompleteStream")
        return _answer("".join(collected.text), collected.calls, stop_reason, metadata)


def _answer(text: str, calls: tuple[ToolCall, ...], stop_reason: str, response: Mapping[str, Any]) -> GeneratedAnswer:
    """The answer of a text and calls, from Converse's response or the stream's metadata.

    Calls count with the reason of their own alone: at any other end the last one may be incomplete, or a guardrail blocked it.
    """
    reason = StopReason(stop_reason) if stop_reason in StopReason else StopReason.OTHER
    refusal = ""
    if reason is StopReason.GUARDRAIL:
        refusal = guardrails.reason(response.get("trace") or {})
    elif reason is StopReason.FILTERED:
        refusal = "the model's content filter"
    usage = response.get("usage") or {}
    calls = calls if reason is StopReason.TOOL_USE else ()
    reason = StopReason.OTHER if reason is StopReason.TOOL_USE and not calls else reason
    return GeneratedAnswer(text, reason, usage.get("inputTokens", 0), usage.get("outputTokens", 0), refusal, calls)


@functools.cache
def _client(config: BedrockGenerationConfig) -> BedrockRuntimeClient:
    client: BedrockRuntimeClient = open_client(config, "bedrock-runtime", connections=8)
    return client

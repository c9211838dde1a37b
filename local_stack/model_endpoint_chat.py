"""Converse and ConverseStream over a local text model: request bodies in, messages and event streams out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from aiohttp import web

from local_stack.model_endpoint_faults import Counters, Faults
from local_stack.model_endpoint_wire import WireError, event, exception, malformed
from local_stack.models.protocol import ChatMessage, TextGenerator

DEFAULT_MAX_TOKENS = 256
"""Answer length when the caller names none; the model is small and loses the thread of long answers."""


class EndpointState(Protocol):
    """What the conversation routes share with the rest of the endpoint."""

    @property
    def faults(self) -> Faults:
        """The faults set now."""
        ...

    @property
    def counters(self) -> Counters:
        """The counts since the last reset."""
        ...

    async def strike(self, request: web.Request) -> None:
        """Suffer the faults that are set."""
        ...


@dataclass(frozen=True, slots=True)
class Conversation:
    """A validated request: what was said, and how to go on."""

    messages: Sequence[ChatMessage]
    max_tokens: int
    temperature: float
    stop: Sequence[str]


@dataclass(slots=True)
class Answer:
    """What has been generated so far, and the figures Converse reports with it."""

    input_tokens: int
    max_tokens: int
    started: float
    output_tokens: int = 0

    def ending(self) -> dict[str, Any]:
        """Return `stopReason`, `usage` and `metrics`."""
        usage = {
            "inputTokens": self.input_tokens,
            "outputTokens": self.output_tokens,
            "totalTokens": self.input_tokens + self.output_tokens,
        }
        reason = "max_tokens" if self.output_tokens >= self.max_tokens else "end_turn"
        return {"stopReason": reason, "usage": usage, "metrics": {"latencyMs": round((time.monotonic() - self.started) * 1000)}}


class ChatRoutes:
    """The two conversation routes; one answer is generated at a time, in a thread of its own."""

    def __init__(self, state: EndpointState, generator: TextGenerator) -> None:
        """Serve this generator with the faults and counters of `state`."""
        self._state = state
        self._generator = generator
        self._thread = ThreadPoolExecutor(1, "generate")

    async def converse(self, request: web.Request) -> web.Response:
        """Answer the whole message at once."""
        await self._state.strike(request)
        conversation = parse_conversation(await request.read())
        answer = self._begin(conversation)
        pieces = [piece async for piece in self._pieces(conversation, answer)]
        content = [{"text": "".join(pieces).strip()}]
        return web.json_response({"output": {"message": {"role": "assistant", "content": content}}, **answer.ending()})

    async def converse_stream(self, request: web.Request) -> web.StreamResponse:
        """Answer in events, as the text comes."""
        await self._state.strike(request)
        conversation = parse_conversation(await request.read())
        answer = self._begin(conversation)
        response = web.StreamResponse(headers={"Content-Type": "application/vnd.amazon.eventstream"})
        await response.prepare(request)
        async for frame in self._frames(conversation, answer):
            await response.write(frame)
        await response.write_eof()
        return response

    async def _frames(self, conversation: Conversation, answer: Answer) -> AsyncIterator[bytes]:
        breaks_off = self._state.faults.strikes("stream_error")
        yield event("messageStart", {"role": "assistant"})
        async for piece in self._pieces(conversation, answer):
            if breaks_off and answer.output_tokens > self._state.faults.stream_error_after:
                yield exception("modelStreamErrorException", {"message": "The model stream broke off.", "originalStatusCode": 500})
                return
            yield event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": piece}})
        ending = answer.ending()
        yield event("contentBlockStop", {"contentBlockIndex": 0})
        yield event("messageStop", {"stopReason": ending.pop("stopReason")})
        yield event("metadata", ending)

    def _begin(self, conversation: Conversation) -> Answer:
        tokens = sum(self._generator.count_tokens(message.text) for message in conversation.messages)
        self._state.counters.generations += 1
        return Answer(tokens, conversation.max_tokens, time.monotonic())

    async def _pieces(self, conversation: Conversation, answer: Answer) -> AsyncIterator[str]:
        loop = asyncio.get_running_loop()
        pieces = self._generator.generate(
            conversation.messages,
            max_tokens=conversation.max_tokens,
            temperature=conversation.temperature,
            stop=conversation.stop,
        )
        while (piece := await loop.run_in_executor(self._thread, _next, pieces)) is not None:
            answer.output_tokens += 1
            self._state.counters.generated_tokens += 1
            yield piece


def _next(pieces: Iterator[str]) -> str | None:
    return next(pieces, None)


def parse_conversation(body: bytes) -> Conversation:
    """Validate a Converse body; raises WireError where Bedrock would."""
    try:
        asked = orjson.loads(body)
        system = [ChatMessage("system", block["text"]) for block in asked.get("system") or []]
        turns = [ChatMessage(turn["role"], _text(turn["content"])) for turn in asked["messages"]]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise malformed(f"{type(error).__name__} in messages or system") from None
    _require_turns(turns)
    inference = asked.get("inferenceConfig") or {}
    return Conversation(
        messages=[*system, *turns],
        max_tokens=inference.get("maxTokens", DEFAULT_MAX_TOKENS),
        temperature=inference.get("temperature", 0.0),
        stop=inference.get("stopSequences") or [],
    )


def _text(content: Sequence[dict[str, str]]) -> str:
    return "\n".join(block["text"] for block in content)


def _require_turns(turns: Sequence[ChatMessage]) -> None:
    if not turns or turns[0].role != "user":
        raise WireError("ValidationException", "A conversation must start with a user message. Try again with a conversation that starts with a user message.")
    for index, turn in enumerate(turns):
        if turn.role != ("user", "assistant")[index % 2]:
            raise WireError("ValidationException", "A conversation must alternate between user and assistant roles.")
        if not turn.text.strip():
            raise WireError("ValidationException", f"The text field in the ContentBlock object at messages.{index}.content.0 is blank. Add text to the text field, and try again.")

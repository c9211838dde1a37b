"""Converse and ConverseStream over a local text model: request bodies in, messages and event streams out."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from typing import Any

import orjson
from aiohttp import web

from local_stack.models.faults import Faults
from local_stack.models.guardrails import BLOCKED, Guardrail
from local_stack.models.instant import CannedGenerator
from local_stack.models.protocol import ChatMessage, ChatRequest, Generated, PromptTooLongError, TextGenerator
from local_stack.models.state import EndpointState
from local_stack.models.tool_calls import BEFORE, CalledTool, called, offered, require_results, turn_of
from local_stack.models.wire import WireError, event, exception, malformed

DEFAULT_MAX_TOKENS = 256
"""Answer length when the caller names none; the small model's long answers are incoherent."""


class Answer:
    """One answer while it is generated: its pieces, then its end."""

    def __init__(self, generator: TextGenerator, request: ChatRequest) -> None:
        """Prepare; the model starts when the first piece is asked for."""
        self._generator = generator
        self._request = request
        self._started = time.monotonic()
        self._stopped = False
        self.generated = Generated(0, 0, "end_turn")
        self.call: CalledTool | None = None

    async def pieces(self, thread: ThreadPoolExecutor) -> AsyncGenerator[str]:
        """Generate in `thread` and yield each piece of text; raises WireError for a prompt that does not fit."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[str | None] = asyncio.Queue()

        def emit(piece: str) -> bool:
            loop.call_soon_threadsafe(waiting.put_nowait, piece)
            return not self._stopped

        def generate() -> Generated:
            try:
                return self._generator.generate(self._request, emit)
            finally:
                loop.call_soon_threadsafe(waiting.put_nowait, None)

        task = loop.run_in_executor(thread, generate)
        try:
            while (piece := await waiting.get()) is not None:
                yield piece
            self.generated = await task
        except PromptTooLongError:
            raise WireError("ValidationException", "Input is too long for requested model.") from None
        finally:
            # Also when the caller hung up: the next question needs the thread.
            self._stopped = True

    def calls_tool(self, faults: Faults) -> CalledTool | None:
        """The tool call that takes the place of an answer, if the conversation provokes one."""
        self.call = called(self._request, faults)
        if self.call is not None:
            words = sum(len(text.split()) for text in self.texts)
            self.generated = Generated(max(1, words), len(self.call.pieces), "tool_use")
        return self.call

    @property
    def texts(self) -> list[str]:
        """What was said, and the system's instruction."""
        return [message.text for message in self._request.messages]

    def ending(self) -> dict[str, Any]:
        """Return `stopReason`, `usage` and `metrics` as Converse names them."""
        done = self.generated
        usage = {
            "inputTokens": done.input_tokens,
            "outputTokens": done.output_tokens,
            "totalTokens": done.input_tokens + done.output_tokens,
        }
        latency = round((time.monotonic() - self._started) * 1000)
        return {"stopReason": done.stop_reason, "usage": usage, "metrics": {"latencyMs": latency}}


class ChatRoutes:
    """The two conversation routes; one answer is generated at a time, in a thread of its own."""

    def __init__(self, state: EndpointState, generator: TextGenerator) -> None:
        """Serve this generator with the faults and counters of `state`."""
        self._state = state
        self._generator = generator
        self.thread = ThreadPoolExecutor(1, "generate")

    async def converse(self, request: web.Request) -> web.Response:
        """Answer the whole message at once."""
        await self._state.strike(request)
        answer, guardrail = self._opened(await request.read())
        text = ""
        if (trace := guardrail.on_input(answer.texts)) is None:
            if answer.calls_tool(self._state.faults) is None:
                text = "".join([piece async for piece in answer.pieces(self.thread)]).strip()
            self.count(answer)
            trace = guardrail.on_output(text)
        content: list[dict[str, Any]] = [{"text": text if trace is None else BLOCKED}]
        if trace is None and (call := answer.call) is not None:
            use = {"toolUseId": call.id, "name": call.name, "input": call.parsed}
            content = [{"text": BEFORE}, {"toolUse": use}]
        if self._state.faults.reasoning:
            content = [{"reasoningContent": {"reasoningText": {"text": "Let me think aloud."}}}, *content]
        message = {"role": "assistant", "content": content}
        return web.json_response({"output": {"message": message}, **_ended(answer, trace)})

    async def converse_stream(self, request: web.Request) -> web.StreamResponse:
        """Answer in events, as the text comes."""
        await self._state.strike(request)
        answer, guardrail = self._opened(await request.read())
        return await self.streamed(request, answer, self._frames(answer, guardrail))

    async def streamed(
        self, request: web.Request, answer: Answer, event_frames: AsyncGenerator[bytes]
    ) -> web.StreamResponse:
        """Send the frames of an answer as they come, and count it."""
        response = web.StreamResponse(headers={"Content-Type": "application/vnd.amazon.eventstream"})
        async with aclosing(event_frames) as frames:
            # The first frame follows the first piece, so that a prompt which is too long is answered with a status.
            first = await anext(frames)
            # A reader who hangs up ends the answer, and that is no error.
            with suppress(ConnectionResetError):
                await response.prepare(request)
                await response.write(first)
                async for frame in frames:
                    await response.write(frame)
                await response.write_eof()
        self.count(answer)
        return response

    async def _frames(self, answer: Answer, guardrail: Guardrail) -> AsyncGenerator[bytes]:
        faults = self._state.faults
        breaks_after = faults.stream_error_after if faults.strikes("stream_error") else math.inf
        sent: list[str] = []
        if (trace := guardrail.on_input(answer.texts)) is None:
            if (call := answer.calls_tool(faults)) is not None:
                for frame in _calling(call, answer, breaks_after, faults):
                    yield frame
                return
            async with aclosing(answer.pieces(self.thread)) as pieces:
                async for piece in pieces:
                    for frame in _beginning(faults) if not sent else ():
                        yield frame
                    await asyncio.sleep(self._state.faults.piece_ms / 1000)
                    if len(sent) >= breaks_after:
                        yield _broken()
                        return
                    yield _delta({"text": piece})
                    sent.append(piece)
            trace = guardrail.on_output("".join(sent))
        for frame in _beginning(faults) if not sent else ():
            yield frame
        if trace is not None:
            yield _delta({"text": BLOCKED})
        ending = _ended(answer, trace)
        yield event("contentBlockStop", {"contentBlockIndex": 0})
        yield event("messageStop", {"stopReason": ending.pop("stopReason")})
        yield event("metadata", ending)

    def _opened(self, body: bytes) -> tuple[Answer, Guardrail]:
        """The answer to a request that is not refused for its text."""
        asked = parse_conversation(body)
        if (error := self._state.faults.against([message.text for message in asked.messages])) is not None:
            raise error
        return self.opened(asked), Guardrail(guardrail_id(body), self._state.faults)

    def opened(self, request: ChatRequest) -> Answer:
        """An answer that is about to be generated, or the one that a test asks for."""
        canned = self._state.faults.answer
        return Answer(self._generator if canned is None else CannedGenerator(canned), request)

    def count(self, answer: Answer) -> None:
        """Count an answer that was given."""
        self._state.counters.generations += answer.generated.input_tokens > 0  # a blocked one never ran
        self._state.counters.generated_tokens += answer.generated.output_tokens


def parse_conversation(body: bytes) -> ChatRequest:
    """Validate a Converse body; raises WireError where Bedrock would."""
    try:
        asked = orjson.loads(body)
        system = [ChatMessage("system", block["text"]) for block in asked.get("system") or []]
        turns = [turn_of(turn) for turn in asked["messages"]]
        tools = offered(asked.get("toolConfig"))
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise malformed(f"{type(error).__name__} in messages or system") from None
    _require_turns(turns)
    require_results(turns, tools)
    inference = asked.get("inferenceConfig") or {}
    return ChatRequest(
        messages=[*system, *turns],
        max_tokens=inference.get("maxTokens", DEFAULT_MAX_TOKENS),
        temperature=inference.get("temperature", 0.0),
        stop=inference.get("stopSequences") or [],
        tools=tools,
    )


def guardrail_id(body: bytes) -> str | None:
    """The guardrail that a request names; raises WireError for half a name."""
    named = orjson.loads(body).get("guardrailConfig")
    if named is None:
        return None
    if not named.get("guardrailIdentifier") or not named.get("guardrailVersion"):
        raise malformed("guardrailConfig needs guardrailIdentifier and guardrailVersion")
    return f"{named['guardrailIdentifier']}:{named['guardrailVersion']}"


def _beginning(faults: Faults) -> Iterator[bytes]:
    """The frames ahead of an answer's text."""
    yield event("messageStart", {"role": "assistant"})
    if faults.reasoning:
        yield _delta({"reasoningContent": {"text": "Let me think aloud."}})
        yield _delta({"citation": {"title": "a document", "sourceContent": [{"text": "quoted"}]}})


def _delta(delta: dict[str, Any]) -> bytes:
    return event("contentBlockDelta", {"contentBlockIndex": 0, "delta": delta})


def _calling(call: CalledTool, answer: Answer, breaks_after: float, faults: Faults) -> Iterator[bytes]:
    """A stream of text, then a tool call whose input comes in pieces."""
    yield from _beginning(faults)
    yield _delta({"text": BEFORE})
    yield event("contentBlockStop", {"contentBlockIndex": 0})
    start = {"toolUse": {"toolUseId": call.id, "name": call.name}}
    yield event("contentBlockStart", {"contentBlockIndex": 1, "start": start})
    for number, piece in enumerate(call.pieces, 1):
        if number >= breaks_after:
            yield _broken()
            return
        yield event("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"toolUse": {"input": piece}}})
    yield event("contentBlockStop", {"contentBlockIndex": 1})
    ending = answer.ending()
    yield event("messageStop", {"stopReason": ending.pop("stopReason")})
    yield event("metadata", ending)


def _broken() -> bytes:
    broken = {"message": "The model stream broke off.", "originalStatusCode": 500}
    return exception("modelStreamErrorException", broken)


def _ended(answer: Answer, trace: dict[str, Any] | None) -> dict[str, Any]:
    """The end of an answer, or of a blocked one."""
    ending = answer.ending()
    return ending if trace is None else ending | {"stopReason": "guardrail_intervened", "trace": trace}


def _require_turns(turns: Sequence[ChatMessage]) -> None:
    if not turns or turns[0].role != "user":
        raise WireError("ValidationException", "A conversation must start with a user message.")
    for index, turn in enumerate(turns):
        if turn.role != ("user", "assistant")[index % 2]:
            raise WireError("ValidationException", "A conversation must alternate between user and assistant roles.")
        if not turn.text.strip() and not turn.calls:
            place = f"messages.{index}.content.0"
            raise WireError("ValidationException", f"The text field in the ContentBlock object at {place} is blank.")

"""The two forms in which LMI and TGI containers take conversations, whole and streamed. Pure.

Sources: OpenAI's chat completions, which both serve; TGI's `generate` and `generate_stream`; LMI's output formats `json` and
`jsonlines`. A stream is lines of JSON, with `data:` before each where the container sends events.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from embeddings.outcomes import Refused, Unanswered
from generation.protocol import GeneratedAnswer, Message, StopReason, Tool
from generation.sagemaker.templates import TEMPLATES, prompt
from generation.sagemaker.tool_calls import CollectedCalls, tools_of, turns_of

STOP_REASONS: Mapping[str, StopReason] = {
    "stop": StopReason.END_TURN,
    "eos_token": StopReason.END_TURN,
    "stop_sequence": StopReason.STOP_SEQUENCE,
    "tool_calls": StopReason.TOOL_USE,
    "length": StopReason.MAX_TOKENS,
    "content_filter": StopReason.FILTERED,
}
"""OpenAI's and TGI's reasons."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A conversation and the settings of its answer."""

    messages: Sequence[Message]
    system: str
    max_tokens: int
    temperature: float
    template: str
    tools: Sequence[Tool] = ()


@dataclass(slots=True)
class Collected:
    """An answer while its parts come."""

    text: str = ""
    stop_reason: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    calls: CollectedCalls = field(default_factory=CollectedCalls)

    def answer(self) -> GeneratedAnswer:
        """The whole answer; raises `Unanswered` where its end is missing."""
        if not self.stop_reason:
            raise Unanswered("IncompleteAnswer")
        reason = STOP_REASONS.get(self.stop_reason, StopReason.OTHER)
        refusal = "the endpoint's content filter" if reason is StopReason.FILTERED else ""
        # TGI says `stop` at the end of a call too; at any other end the last call may be incomplete.
        calls = self.calls.calls if reason in {StopReason.TOOL_USE, StopReason.END_TURN} else ()
        if calls or reason is StopReason.TOOL_USE:
            reason = StopReason.TOOL_USE if calls else StopReason.OTHER
        return GeneratedAnswer(self.text, reason, self.input_tokens, self.output_tokens, refusal, calls)


def messages_request(asked: Asked, *, stream: bool) -> bytes:
    """OpenAI's chat form."""
    turns: list[dict[str, Any]] = [{"role": "system", "content": asked.system}] if asked.system else []
    turns += [turn for message in asked.messages for turn in turns_of(message)]
    body: dict[str, Any] = {
        "messages": turns, "max_tokens": asked.max_tokens, "temperature": asked.temperature, "stream": stream,
    }  # fmt: skip
    if asked.tools:
        body |= tools_of(asked.tools)
    return json.dumps(body | ({"stream_options": {"include_usage": True}} if stream else {})).encode()


def inputs_request(asked: Asked, *, stream: bool) -> bytes:
    """One prompt and its parameters; TGI refuses a temperature of 0, which is no sampling."""
    parameters: dict[str, Any] = {
        "max_new_tokens": asked.max_tokens, "return_full_text": False, "details": True,
        "do_sample": asked.temperature > 0, "stop": list(TEMPLATES[asked.template].stop),
    }  # fmt: skip
    if asked.temperature > 0:
        parameters["temperature"] = asked.temperature
    payload = {
        "inputs": prompt(asked.template, asked.messages, asked.system),
        "parameters": parameters,
        "stream": stream,
    }
    return json.dumps(payload).encode()


def whole(body: bytes) -> GeneratedAnswer:
    """Read an answer of either form; raises as `Generator`'s outcomes."""
    payload = _object(body)
    if isinstance(payload, list):
        payload = payload[0] if payload else {}
    collected = Collected()
    for _ in _pieces(payload, collected):
        pass
    return collected.answer()


def lines_of(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of JSON in the parts of a stream, which are cut anywhere, within a character too."""
    rest = b""
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        yield from filter(None, map(_json_of, lines))
    if line := _json_of(rest):
        yield line


def streamed(line: bytes, collected: Collected) -> Iterator[str]:
    """The text of one line of a stream, added to what was collected."""
    return _pieces(_object(line), collected)


def _json_of(line: bytes) -> bytes:
    line = line.strip().removeprefix(b"data:").strip()
    return line if line.startswith((b"{", b"[{")) else b""


def _object(body: bytes) -> Any:
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Unanswered("UnreadableAnswer") from None
    if isinstance(payload, Mapping) and ("error" in payload or "error_type" in payload):
        _raise(payload)
    return payload


def _raise(payload: Mapping[str, Any]) -> None:
    kind = str(payload.get("error_type", ""))
    if kind == "validation":
        raise Refused("ValidationError", too_long=True)
    raise Unanswered("ModelStreamError")


def _pieces(payload: Mapping[str, Any], collected: Collected) -> Iterator[str]:
    """The text in one object of any of the forms."""
    if usage := payload.get("usage"):
        collected.input_tokens = usage.get("prompt_tokens", 0)
        collected.output_tokens = usage.get("completion_tokens", 0)
    text = ""
    for choice in (payload.get("choices") or ())[:1]:
        message = choice.get("message") or choice.get("delta") or {}
        text = message.get("content") or ""
        collected.calls.add(message.get("tool_calls") or ())
        collected.stop_reason = choice.get("finish_reason") or collected.stop_reason
    token = payload.get("token") or {}
    if token and not token.get("special"):
        text = token.get("text") or ""
    details = payload.get("details") or {}
    if details:
        collected.stop_reason = details.get("finish_reason") or collected.stop_reason
        collected.output_tokens = details.get("generated_tokens", collected.output_tokens)
        collected.input_tokens = details.get("input_length", len(details.get("prefill") or ()))
    if not token and isinstance(payload.get("generated_text"), str):
        text = payload["generated_text"]
        collected.stop_reason = collected.stop_reason or "stop"
    elif token and isinstance(payload.get("generated_text"), str):
        collected.stop_reason = collected.stop_reason or "stop"
    if text:
        collected.text += text
        yield text

"""The conversations that text containers behind a SageMaker endpoint take: OpenAI's chat form, and one prompt of text.

`tgi-…` answers in TGI's form (a list; events), `lmi-…` in LMI's (an object; lines of JSON). Both stream OpenAI's form as events.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from local_stack.models.protocol import ChatMessage, ChatRequest, Generated
from local_stack.models.wire import ContainerError

_CHATML = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", re.DOTALL)
_PLAIN = re.compile(r"^(System|User|Assistant): (.*?)(?=^(?:System|User|Assistant):)", re.DOTALL | re.MULTILINE)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Turn(_Body):
    role: Literal["system", "user", "assistant"]
    content: str


class _StreamOptions(_Body):
    include_usage: bool = False


class _Messages(_Body):
    messages: list[_Turn]
    model: str = ""
    max_tokens: int = 100
    temperature: float = 1.0
    stream: bool = False
    stream_options: _StreamOptions | None = None


class _Parameters(_Body):
    max_new_tokens: int = 100
    return_full_text: bool = False
    details: bool = False
    do_sample: bool = False
    temperature: float | None = None
    stop: list[str] = []


class _Inputs(_Body):
    inputs: str
    parameters: _Parameters = _Parameters()
    stream: bool = False


@dataclass(frozen=True, slots=True)
class ContainerChat:
    """One conversation, and how its answer is written down."""

    request: ChatRequest
    form: Literal["openai", "tgi", "lmi"]

    def whole(self, text: str, done: Generated) -> Any:
        """The body of an answer."""
        if self.form == "openai":
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": self._reason(done)}
            return {"object": "chat.completion", "choices": [choice], "usage": _usage(done)}
        payload = {"generated_text": text, "details": self._details(done)}
        return [payload] if self.form == "tgi" else payload

    def piece(self, text: str) -> bytes:
        """A piece of an answer in a stream."""
        if self.form == "openai":
            choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
            return self._line({"object": "chat.completion.chunk", "choices": [choice]})
        token = {"id": 1, "text": text, "special": False}
        return self._line({"token": token, "generated_text": None, "details": None})

    def end(self, text: str, done: Generated) -> bytes:
        """The end of a stream."""
        if self.form == "openai":
            choice = {"index": 0, "delta": {}, "finish_reason": self._reason(done)}
            last = self._line({"choices": [choice]}) + self._line({"choices": [], "usage": _usage(done)})
            return last + b"data: [DONE]\n\n"
        token = {"id": 2, "text": "</s>", "special": True}
        details = self._details(done) | {"input_length": done.input_tokens}
        return self._line({"token": token, "generated_text": text, "details": details})

    def _line(self, payload: dict[str, Any]) -> bytes:
        raw = orjson.dumps(payload)
        return raw + b"\n" if self.form == "lmi" else b"data:" + raw + b"\n\n"

    def _reason(self, done: Generated) -> str:
        if done.stop_reason == "max_tokens":
            return "length"
        return "eos_token" if self.form == "tgi" else "stop"

    def _details(self, done: Generated) -> dict[str, Any]:
        return {"finish_reason": self._reason(done), "generated_tokens": done.output_tokens, "prefill": []}


def open_chat(endpoint: str, body: bytes) -> ContainerChat | None:
    """Validate a request for a text container; None where the endpoint's name tells of none."""
    container = endpoint.partition("-")[0]
    if container not in {"tgi", "lmi"}:
        return None
    try:
        if "inputs" in _keys(body):
            asked = _Inputs.model_validate_json(body)
            parameters = asked.parameters
            if parameters.temperature is not None and parameters.temperature <= 0:
                raise ContainerError(
                    422, "Input validation error: `temperature` must be strictly positive", "validation"
                )
            messages = _turns(asked.inputs)
            settings = (parameters.max_new_tokens, parameters.temperature or 0.0, parameters.stop)
            return ContainerChat(ChatRequest(messages, *settings), "tgi" if container == "tgi" else "lmi")
        conversation = _Messages.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = "/".join(str(part) for part in first["loc"])
        raise ContainerError(422, f"Input validation error: {place}: {first['msg']}", "validation") from None
    messages = [ChatMessage(turn.role, turn.content) for turn in conversation.messages]
    if not messages:
        raise ContainerError(422, "Input validation error: `messages` cannot be empty", "validation")
    return ContainerChat(ChatRequest(messages, conversation.max_tokens, conversation.temperature), "openai")


def _keys(body: bytes) -> set[str]:
    try:
        return set(orjson.loads(body))
    except (orjson.JSONDecodeError, TypeError):
        raise ContainerError(400, "the body is no JSON object", "validation") from None


def _usage(done: Generated) -> dict[str, int]:
    total = done.input_tokens + done.output_tokens
    return {"prompt_tokens": done.input_tokens, "completion_tokens": done.output_tokens, "total_tokens": total}


def _turns(prompt: str) -> list[ChatMessage]:
    """The turns that a template wrote, as the model reads them; a text without a template's markers is one turn."""
    turns = _CHATML.findall(prompt) or _PLAIN.findall(prompt)
    return [ChatMessage(role.lower(), text.strip()) for role, text in turns] or [ChatMessage("user", prompt)]

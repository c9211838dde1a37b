"""The conversations that text containers behind a SageMaker endpoint take: OpenAI's chat form, and one prompt of text.

`tgi-…` answers in TGI's form (a list; events), `lmi-…` in LMI's (an object; lines of JSON). Both stream OpenAI's form as events.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from local_stack.models.protocol import ChatMessage, ChatRequest, Generated, OfferedTool
from local_stack.models.tool_calls import BEFORE, CalledTool
from local_stack.models.wire import ContainerError

_CHATML = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", re.DOTALL)
_PLAIN = re.compile(r"^(System|User|Assistant): (.*?)(?=^(?:System|User|Assistant):)", re.DOTALL | re.MULTILINE)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _WrittenFunction(_Body):
    name: str
    arguments: str


class _WrittenCall(_Body):
    id: str
    type: Literal["function"]
    function: _WrittenFunction


class _Turn(_Body):
    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: list[_WrittenCall] = []
    tool_call_id: str | None = None


class _Function(_Body):
    name: str
    description: str
    parameters: dict[str, Any]


class _Tool(_Body):
    type: Literal["function"]
    function: _Function


class _StreamOptions(_Body):
    include_usage: bool = False


class _Messages(_Body):
    messages: list[_Turn]
    model: str = ""
    max_tokens: int = 100
    temperature: float = 1.0
    stream: bool = False
    stream_options: _StreamOptions | None = None
    tools: list[_Tool] = []
    tool_choice: Literal["auto", "none"] = "auto"


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
    is_tgi: bool = False

    def calling(self, call: CalledTool, done: Generated) -> Any:
        """The body of an answer that calls a tool: TGI's has the input as an object and the id `0`, and ends with `stop`."""
        function = {"name": call.name, "arguments": call.parsed if self.is_tgi else call.input}
        written = {"id": "0" if self.is_tgi else call.id, "type": "function", "function": function}
        message = {"role": "assistant", "tool_calls": [written]} | ({} if self.is_tgi else {"content": BEFORE})
        choice = {"index": 0, "message": message, "finish_reason": "stop" if self.is_tgi else "tool_calls"}
        return {"object": "chat.completion", "choices": [choice], "usage": _usage(done)}

    def call_parts(self, call: CalledTool) -> list[bytes]:
        """The pieces of a tool call in a stream, without its end."""
        parts = [] if self.is_tgi else [self.piece(BEFORE)]
        for number, piece in enumerate(call.pieces):
            begins = number == 0
            function = {"name": call.name if begins else None, "arguments": piece}
            part = {"index": 0, "id": "0" if self.is_tgi else call.id if begins else None, "type": "function"}
            delta = {"role": "assistant", "tool_calls": [part | {"function": function}]}
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            parts.append(self._line({"object": "chat.completion.chunk", "choices": [choice]}))
        return parts

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
        if done.stop_reason == "tool_use":
            return "stop" if self.is_tgi else "tool_calls"
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
    messages = [_message(turn) for turn in conversation.messages]
    if not messages:
        raise ContainerError(422, "Input validation error: `messages` cannot be empty", "validation")
    offered = [tool.function for tool in conversation.tools if conversation.tool_choice != "none"]
    tools = [OfferedTool(tool.name, tool.description, tool.parameters) for tool in offered]
    request = ChatRequest(messages, conversation.max_tokens, conversation.temperature, tools=tools)
    return ContainerChat(request, "openai", is_tgi=container == "tgi")


def _message(turn: _Turn) -> ChatMessage:
    """A turn; a tool's result is a turn of the user to the text model."""
    if turn.role == "tool":
        return ChatMessage("user", turn.content, results=(str(turn.tool_call_id),))
    return ChatMessage(turn.role, turn.content, tuple(call.id for call in turn.tool_calls))


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

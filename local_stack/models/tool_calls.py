"""Tool calls of the local endpoint: a stand-in for a model that calls tools, by rules. No model decides here.

The first offered tool is called whose required properties all have a value in the last user's question: of a list of choices one
that the question names, a whole number, a number, a date, or a text in double quotes. It is called once: with its result in the
conversation the text model answers. The fault `tool_inputs` has inputs written instead, whatever they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from local_stack.models.faults import Faults
from local_stack.models.protocol import ChatMessage, ChatRequest, OfferedTool
from local_stack.models.wire import WireError, malformed

BEFORE = "Let me look that up."
"""What is said ahead of a call, as models do."""
PIECE = 7
"""Characters of an input's JSON in a piece of a stream."""

_QUESTION = re.compile(r"<question>(.*?)</question>", re.DOTALL)
_VALUES = {
    "integer": r"(?<![\w.-])(-?\d+)(?![\w.-])",
    "number": r"(?<![\w.-])(-?\d+(?:\.\d+)?)(?![\w-])",
    "date": r"\b(\d{4}-\d\d-\d\d)\b",
    "string": r'"([^"]+)"',
}


@dataclass(frozen=True, slots=True)
class CalledTool:
    """A call as the model writes it."""

    name: str
    input: str
    """JSON, or what a model writes in its place."""
    id: str = "tooluse_1"

    @property
    def pieces(self) -> list[str]:
        """The input as it comes in a stream."""
        return [self.input[at : at + PIECE] for at in range(0, len(self.input), PIECE)]

    @property
    def parsed(self) -> Any:
        """The input as a document; text that is no JSON stays text, as models of Bedrock send it."""
        try:
            return json.loads(self.input)
        except ValueError:
            return self.input


def called(request: ChatRequest, faults: Faults) -> CalledTool | None:
    """The call that a conversation provokes; None where the text model answers. Raises WireError for one that takes no tools."""
    if not request.tools:
        return None
    if faults.refuse_tools:
        raise WireError("ValidationException", "This model doesn't support tool use in streaming mode.")
    if faults.tool_inputs:
        return CalledTool(faults.tool_name or request.tools[0].name, faults.tool_inputs.pop(0))
    if request.messages[-1].results:
        return None
    last = request.messages[-1].text
    question = _QUESTION.search(last)
    asked = question[1] if question else last
    for tool in request.tools:
        values = {name: _value(schema, asked) for name, schema in tool.schema.get("properties", {}).items()}
        if values and None not in values.values():
            return CalledTool(tool.name, json.dumps(values))
    return None


def _value(schema: Mapping[str, Any], asked: str) -> Any:
    if "enum" in schema:
        named = (
            choice for choice in schema["enum"] if re.search(rf"\b{re.escape(str(choice))}\b", asked, re.IGNORECASE)
        )
        return next(named, None)
    kind = str(schema.get("format") or schema.get("type"))
    match = re.search(_VALUES[kind], asked) if kind in _VALUES else None
    if match is None:
        return None
    return json.loads(match[1]) if kind in {"integer", "number"} else match[1]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Schema(_Body):
    json_schema: dict[str, Any] = Field(alias="json")


class _Specification(_Body):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str = Field(default=" ", min_length=1)
    inputSchema: _Schema  # noqa: N815 - Converse's own name


class _Tool(_Body):
    toolSpec: _Specification  # noqa: N815 - Converse's own name


class _ToolConfig(_Body):
    tools: list[_Tool] = Field(min_length=1)
    toolChoice: dict[Literal["auto"], dict[str, Any]] = {}  # noqa: N815 - Converse's own name


def offered(config: object) -> list[OfferedTool]:
    """The tools of a `toolConfig`; raises WireError where Bedrock would refuse it."""
    if config is None:
        return []
    try:
        tools = [tool.toolSpec for tool in _ToolConfig.model_validate(config).tools]
    except ValidationError as error:
        raise malformed("/".join(map(str, error.errors()[0]["loc"]))) from None
    return [OfferedTool(tool.name, tool.description, tool.inputSchema.json_schema) for tool in tools]


def turn_of(turn: Mapping[str, Any]) -> ChatMessage:
    """A turn of Converse with its tool calls and results; raises KeyError for blocks of another kind."""
    texts, calls, results = [], [], []
    for block in turn["content"]:
        if "toolUse" in block:
            calls.append(block["toolUse"]["toolUseId"])
        elif "toolResult" in block:
            results.append(block["toolResult"]["toolUseId"])
            texts += [part["text"] for part in block["toolResult"]["content"]]
        else:
            texts.append(block["text"])
    return ChatMessage(turn["role"], "\n".join(texts), tuple(calls), tuple(results))


def require_results(turns: Sequence[ChatMessage], tools: Sequence[OfferedTool]) -> None:
    """Refuse calls without the results behind them, results of no call, and either without tools."""
    for before, turn in zip([ChatMessage("user", ""), *turns], [*turns, ChatMessage("user", "")], strict=True):
        if before.calls != turn.results:
            raise WireError(
                "ValidationException", "Expected toolResult blocks for the toolUse blocks of the previous turn."
            )
    if not tools and any(turn.calls or turn.results for turn in turns):
        raise WireError(
            "ValidationException",
            "The toolConfig field must be defined when using toolUse and toolResult content blocks.",
        )

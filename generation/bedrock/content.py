"""Turns, tools and tool calls as Converse has them, whole and in a stream's events. Pure.

Shapes are `ContentBlock`, `ToolConfiguration` and `ContentBlockStart` of botocore's service model of bedrock-runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from generation.protocol import Message, Tool, ToolCall
from generation.tool_inputs import input_of


def turn_of(message: Message) -> dict[str, Any]:
    """A turn as a message of Converse; an empty text is left out beside other content, as Converse takes no blank one."""
    content: list[dict[str, Any]] = [
        {"toolResult": {
            "toolUseId": result.id, "content": [{"text": result.text}], "status": "error" if result.is_error else "success",
        }}
        for result in message.results
    ]  # fmt: skip
    if message.text or not (message.calls or message.results):
        content.append({"text": message.text})
    content += [
        {"toolUse": {"toolUseId": call.id, "name": call.name, "input": dict(call.input or {})}}
        for call in message.calls
    ]
    return {"role": message.role, "content": content}


def tool_config(tools: Sequence[Tool]) -> dict[str, Any]:
    """The member `toolConfig`; the model decides whether it calls any."""
    specifications = [
        {"toolSpec": {"name": t.name, "description": t.description, "inputSchema": {"json": dict(t.schema)}}}
        for t in tools
    ]
    return {"tools": specifications, "toolChoice": {"auto": {}}}


def text_and_calls(content: Sequence[Mapping[str, Any]]) -> tuple[str, tuple[ToolCall, ...]]:
    """The text of an answer's blocks, without reasoning, and its calls; botocore leaves an input of `null` out."""
    uses = [block["toolUse"] for block in content if "toolUse" in block]
    calls = tuple(ToolCall(use["toolUseId"], use["name"], input_of(use.get("input"))) for use in uses)
    return "".join(block.get("text", "") for block in content), calls


@dataclass(slots=True)
class Collected:
    """The blocks of an answer while a stream's events come."""

    text: list[str] = field(default_factory=list)
    _calls: dict[int, tuple[str, str, list[str]]] = field(default_factory=dict)
    """By the block's index: id, name, and the pieces of the input's JSON."""

    def add(self, event: Mapping[str, Any]) -> str:
        """Add an event; returns the text in it, if there is any."""
        if (start := event.get("contentBlockStart")) and "toolUse" in start["start"]:
            use = start["start"]["toolUse"]
            self._calls[start["contentBlockIndex"]] = (use["toolUseId"], use["name"], [])
        block = event.get("contentBlockDelta") or {}
        delta = block.get("delta") or {}
        if "toolUse" in delta and block["contentBlockIndex"] in self._calls:
            self._calls[block["contentBlockIndex"]][2].append(delta["toolUse"]["input"])
        piece: str = delta.get("text", "")
        self.text += [piece] if piece else []
        return piece

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls, in their order; a model that gives no input sends an empty text."""
        return tuple(
            ToolCall(use_id, name, input_of("".join(pieces) or "{}"))
            for _, (use_id, name, pieces) in sorted(self._calls.items())
        )

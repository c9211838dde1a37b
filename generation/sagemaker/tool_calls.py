"""Tools and tool calls in OpenAI's chat form, as LMI and TGI containers take and write them. Pure.

OpenAI's API reference, "Create chat completion" (`tools`, `tool_calls`). TGI (router/src/chat.rs) gives every call the id `0` and
writes its input as an object where it answers at once; vLLM in LMI writes both as OpenAI does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from generation.protocol import Message, Tool, ToolCall
from generation.tool_inputs import input_of


def turns_of(message: Message) -> Iterator[dict[str, Any]]:
    """A turn as one message; each result is a message of its own, before the text.

    Text beside calls is left out: TGI reads a message with both as one without calls.
    """
    for result in message.results:
        yield {"role": "tool", "tool_call_id": result.id, "content": result.text}
    if message.calls:
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": json.dumps(call.input or {})}}
            for call in message.calls
        ]  # fmt: skip
        yield {"role": message.role, "tool_calls": calls}
    elif message.text or not message.results:
        yield {"role": message.role, "content": message.text}


def tools_of(tools: Sequence[Tool]) -> dict[str, Any]:
    """The members of a request that offer tools; the model decides whether it calls any."""
    functions = [{"name": t.name, "description": t.description, "parameters": dict(t.schema)} for t in tools]
    return {"tools": [{"type": "function", "function": function} for function in functions], "tool_choice": "auto"}


@dataclass(slots=True)
class CollectedCalls:
    """The calls of an answer while its parts come; an answer given at once has one part."""

    _parts: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    """By the call's place."""

    def add(self, parts: Sequence[Mapping[str, Any]]) -> None:
        """Add the `tool_calls` of a message or of a delta, which names the place of each."""
        for place, part in enumerate(parts):
            self._parts.setdefault(int(part.get("index", place)), []).append(dict(part))

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls in their order, each with an id that no other one has."""
        return tuple(_call(place, parts) for place, parts in sorted(self._parts.items()))


def _call(place: int, parts: Sequence[Mapping[str, Any]]) -> ToolCall:
    functions = [part.get("function") or {} for part in parts]
    pieces = [function["arguments"] for function in functions if function.get("arguments")]
    whole = next((piece for piece in pieces if isinstance(piece, dict)), None)
    name = "".join(str(function["name"]) for function in functions if function.get("name"))
    call_id = next((str(part["id"]) for part in parts if part.get("id")), "")
    return ToolCall(f"{call_id or 'call'}-{place}", name, whole or input_of("".join(map(str, pieces)) or "{}"))

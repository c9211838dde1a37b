"""Turns written as one prompt, for containers that take `inputs`. Pure.

A turn's text cannot end its turn: the markers of the templates are broken up in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from generation.protocol import Message


class Template(NamedTuple):
    """How one turn is written, and what stands around all of them."""

    begin: str
    turn: str
    answer: str
    names: Mapping[str, str]
    stop: tuple[str, ...]
    """What the model writes where its turn ends."""


_NAMES = {"system": "system", "user": "user", "assistant": "assistant"}
TEMPLATES: Mapping[str, Template] = {
    "plain": Template(
        "",
        "{role}: {text}\n\n",
        "Assistant:",
        {"system": "System", "user": "User", "assistant": "Assistant"},
        ("\nUser:",),
    ),
    "chatml": Template(
        "", "<|im_start|>{role}\n{text}<|im_end|>\n", "<|im_start|>assistant\n", _NAMES, ("<|im_end|>",)
    ),
    "llama3": Template(
        "<|begin_of_text|>",
        "<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        _NAMES,
        ("<|eot_id|>",),
    ),
}
"""ChatML as in Qwen's and SmolLM's model cards, Llama 3's as in its own."""

_MARKER = re.compile(r"<\|")
_SPEAKER = re.compile(r"^(?=(?:System|User|Assistant):)", re.MULTILINE)


def prompt(name: str, messages: Sequence[Message], system: str) -> str:
    """The conversation as one text that ends where the answer begins."""
    template = TEMPLATES[name]
    turns = [("system", system)] if system else []
    turns += [(message.role, message.text) for message in messages]
    written = (template.turn.format(role=template.names[role], text=_inert(text)) for role, text in turns)
    return template.begin + "".join(written) + template.answer


def _inert(text: str) -> str:
    return _SPEAKER.sub(" ", _MARKER.sub("< |", text))

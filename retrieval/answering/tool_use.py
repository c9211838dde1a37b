"""The tool calls of one answer: each is checked, read as a fact, and answered, within bounds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from generation import ToolCall, ToolResult
from retrieval.answering import prompt
from retrieval.facts.calls import RefusedInput
from retrieval.facts.relevant import fact_text

if TYPE_CHECKING:
    from retrieval.answering.drafts import FactSource
    from sinks.search import Hit
    from warehouse.facts.reader import Fact

_LOG = logging.getLogger(__name__)

MOST_CALLS = 3
"""Calls of one answer that are run; what a model asks for beyond them is left out."""
NOTHING = "This fact has nothing to tell. Answer without it."
LEFT_OUT = "This call is left out. Answer without it."


class ToolUse:
    """What a text model asked for while it wrote one answer. Not thread-safe."""

    def __init__(self, source: FactSource, hits: Sequence[Hit], facts: Sequence[Fact]) -> None:
        """`facts` are in the prompt already, and numbered before those that calls read."""
        self._source, self.hits = source, hits
        self._run = self._refused = 0
        self.facts = [*facts]
        """All facts that the answer may cite, in the order of their numbers."""

    def results(self, calls: Sequence[ToolCall]) -> tuple[ToolResult, ...]:
        """The result of each call, in their order; the reason of a refused input is returned once in an answer."""
        return tuple(self._result(call) for call in calls)

    def _result(self, call: ToolCall) -> ToolResult:
        if self._run == MOST_CALLS:
            return ToolResult(call.id, LEFT_OUT, is_error=True)
        self._run += 1
        try:
            fact = self._source.call(call.name, call.input, self.hits)
        except RefusedInput as refused:
            self._refused += 1
            if self._refused == 1:
                return ToolResult(
                    call.id, f"Refused: {refused}. Call it again once, or answer without it.", is_error=True
                )
            offered = [tool.name for tool in self._source.tools(self.hits)]
            named = call.name if call.name in offered else "none that was offered"
            _LOG.warning(
                "fact is left out", extra={"context": {"fact": named, "error": "a text model's input is refused"}}
            )
            return ToolResult(call.id, LEFT_OUT, is_error=True)
        if fact is None:
            return ToolResult(call.id, NOTHING)
        number = next((at for at, other in enumerate(self.facts, 1) if other.key == fact.key), 0)
        if not number:
            self.facts.append(fact)
        return ToolResult(call.id, prompt.fact(number or len(self.facts), fact_text(fact)))

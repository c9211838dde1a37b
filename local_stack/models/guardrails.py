"""A guardrail of the local endpoint: it blocks conversations and answers with a mark, as Converse tells of it.

The trace has the form of `GuardrailTraceAssessment` in botocore's service model of bedrock-runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from local_stack.models.faults import Faults

BLOCKED = "Sorry, this cannot be talked about here."
"""The message that the guardrail's owner wrote for both sides."""


@dataclass(frozen=True, slots=True)
class Guardrail:
    """The guardrail of one request; without an id it lets everything through."""

    id: str | None
    faults: Faults

    def on_input(self, texts: Sequence[str]) -> dict[str, Any] | None:
        """The trace of a conversation that is blocked; None for one that is not."""
        mark = self.faults.guard_question
        if self.id is None or mark is None or not any(mark in text for text in texts):
            return None
        topic = {"name": "Investment advice", "type": "DENY", "action": "BLOCKED"}
        passed = {"type": "INSULTS", "confidence": "LOW", "action": "NONE"}
        assessment = {"topicPolicy": {"topics": [topic]}, "contentPolicy": {"filters": [passed]}}
        return {"guardrail": {"inputAssessment": {self.id: assessment}}}

    def on_output(self, text: str) -> dict[str, Any] | None:
        """The trace of an answer that is blocked; None for one that is not."""
        mark = self.faults.guard_answer
        if self.id is None or mark is None or mark not in text:
            return None
        entity = {"type": "EMAIL", "match": mark, "action": "BLOCKED"}
        return {
            "guardrail": {"outputAssessments": {self.id: [{"sensitiveInformationPolicy": {"piiEntities": [entity]}}]}}
        }

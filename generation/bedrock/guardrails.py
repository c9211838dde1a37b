"""Which rules of a guardrail intervened, from the trace of an answer. Pure.

The trace also quotes what matched; that is text of rows and questions, and is left out. Its form is `GuardrailTraceAssessment` of
botocore's service model of bedrock-runtime.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_RULES = (
    ("topicPolicy", "topics", "topic", "name"),
    ("contentPolicy", "filters", "content", "type"),
    ("wordPolicy", "customWords", "word list", ""),
    ("wordPolicy", "managedWordLists", "word list", "type"),
    ("sensitiveInformationPolicy", "piiEntities", "sensitive information", "type"),
    ("sensitiveInformationPolicy", "regexes", "sensitive information", "name"),
    ("contextualGroundingPolicy", "filters", "contextual grounding", "type"),
)
"""Policy and list of the trace, their name in a reason, and the key of the rule's own name."""

UNNAMED = "guardrail"
"""The reason where the answer has no trace."""


def reason(trace: Mapping[str, Any]) -> str:
    """The rules that intervened, such as `topic Investments (input)`, in the order of the trace."""
    guardrail = trace.get("guardrail") or {}
    inputs = list((guardrail.get("inputAssessment") or {}).values())
    outputs = [assessment for several in (guardrail.get("outputAssessments") or {}).values() for assessment in several]
    named = [*_named(inputs, "input"), *_named(outputs, "output")]
    return ", ".join(dict.fromkeys(named)) or UNNAMED


def _named(assessments: Sequence[Mapping[str, Any]], side: str) -> Iterator[str]:
    for assessment in assessments:
        for policy, rules, kind, key in _RULES:
            for rule in (assessment.get(policy) or {}).get(rules) or ():
                if rule.get("action", "NONE") != "NONE":
                    name = str(rule.get(key, "")) if key else ""
                    yield f"{kind} {name}".strip() + f" ({side})"

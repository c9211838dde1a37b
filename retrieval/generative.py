"""Answers worded by a text model, of which only what the cited rows hold is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

from generation import Message, StopReason
from generation.errors import GenerationRejectedError
from retrieval import prompt
from retrieval.drafts import Draft, Statement
from retrieval.support import unsupported

if TYPE_CHECKING:
    from generation import Generator
    from generation.rules import Unsupported
    from retrieval.fusion import Ranked
    from sinks.search import Question

SOURCES = 5
"""Documents that an answer may draw on."""

REFUSED = "No answer is given: the text model's guardrail refuses it ({})."
NOT_SUPPORTED = "No answer is given: the rows that the text model cites do not hold what it said."


class GenerativeAnswerer:
    """Asks a text model. Citations are numbers of the prompt's sources; other numbers are dropped, and so is what has none."""

    def __init__(self, generator: Generator, rule: Unsupported = "drop") -> None:
        """`rule` says what happens to a sentence with a number or a name that no row it cites holds."""
        self._generator = generator
        self._rule = rule

    @property
    def name(self) -> str:
        """`generative`, and the text model."""
        return f"generative ({self._generator.model})"

    def draft(self, question: Question, sources: Sequence[Ranked]) -> Draft:
        """Ask once, with fewer sources if the model refuses their length."""
        for most in (SOURCES, 2, 1):
            hits = [source.hit for source in sources[:most]]
            turn = prompt.user_turn(question.text, [hit.chunk_text for hit in hits])
            try:
                answer = self._generator.converse([Message("user", turn)], system=prompt.SYSTEM)
            except GenerationRejectedError:
                if most == 1:
                    raise
                continue
            if answer.is_refusal:
                return Draft(refusal=REFUSED.format(answer.refusal))
            text = prompt.ended(answer.text) if answer.stop_reason is StopReason.MAX_TOKENS else answer.text
            if prompt.abstains(text):
                return Draft()
            said = [
                Statement(sentence, tuple(hits[number - 1] for number in numbers))
                for sentence, numbers in prompt.statements(text, len(hits))
            ]
            return supported(said, self._rule)
        raise AssertionError


def supported(said: Sequence[Statement], rule: Unsupported) -> Draft:
    """The sentences that may be said: each cites a row, and holds no number or name that its rows do not, unless it is kept."""
    cited = [statement for statement in said if statement.cites]
    kept = []
    for statement in cited:
        missing = unsupported(statement.text, [hit.chunk_text for hit in statement.cites])
        match rule:
            case "drop":
                kept += [] if missing else [statement]
            case "mark":
                kept.append(replace(statement, unsupported=tuple(missing)))
            case "keep":
                kept.append(statement)
            case _:
                assert_never(rule)
    return Draft(tuple(kept), "" if kept or not cited else NOT_SUPPORTED, is_worded=True)

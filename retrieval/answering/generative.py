"""Answers worded by a text model, of which only what the cited rows and facts hold is kept."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, assert_never

from generation import Message, StopReason
from generation.errors import GenerationRejectedError
from retrieval.answering import prompt
from retrieval.answering.drafts import NO_FACTS, Draft, FactSource, Progress, Statement, ignore_progress
from retrieval.answering.support import unsupported
from retrieval.answering.tool_use import ToolUse
from retrieval.answering.writing import written
from retrieval.facts.relevant import fact_evidence, fact_text

if TYPE_CHECKING:
    from generation import GeneratedAnswer, Generator, Tool
    from generation.rules import Unsupported
    from retrieval.ranking.fusion import Ranked
    from sinks.search import Hit, Question
    from warehouse.facts.reader import Fact

_LOG = logging.getLogger(__name__)

SOURCES = 5
"""Documents that an answer may draw on."""
ROUNDS = 2
"""Requests of one answer that offer tools: one for the calls, one for what is called again or wanted then."""

REFUSED = "No answer is given: the text model's guardrail refuses it ({})."
NOT_SUPPORTED = "No answer is given: what the text model cites does not hold what it said."


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

    def draft(
        self,
        question: Question,
        sources: Sequence[Ranked],
        facts: FactSource = NO_FACTS,
        *,
        progress: Progress = ignore_progress,
    ) -> Draft:
        """Ask with the facts that need no model in the prompt, and with tools for others.

        A model that refuses is asked without tools, then with fewer sources, and at last with one and no fact. Sentences are
        reported as the model writes them.
        """
        every = [source.hit for source in sources[:SOURCES]]
        read, tools = facts.read(every), facts.tools(every) if self._generator.takes_tools else ()
        for most, offered in ([(SOURCES, tools)] if tools else []) + [(SOURCES, ()), (2, ()), (1, ())]:
            hits, in_prompt = every[:most], read if most > 1 else ()
            if not (hits or in_prompt or offered):
                return Draft()
            use = ToolUse(facts, hits, in_prompt)
            try:
                answer = self._answered(question.text, use, offered, progress)
            except GenerationRejectedError:
                if most == 1 or not (hits or offered):
                    raise
                if offered:
                    _LOG.warning("a text model refuses a question with tools: it is asked without them")
                continue
            return self._drafted(answer, hits, use.facts)
        raise AssertionError

    def _answered(self, question: str, use: ToolUse, tools: Sequence[Tool], progress: Progress) -> GeneratedAnswer:
        """Ask, answering tool calls, at most `ROUNDS` times; then once more with all facts and no tool, so that it ends."""
        messages = [_user_turn(question, use)]
        for _ in range(ROUNDS if tools else 0):
            answer = self._written(messages, use, tools, progress)
            if not answer.calls and (answer.text or answer.is_refusal):
                return answer
            if not answer.calls:  # the model wrote a call that its provider could not read
                break
            messages += [
                Message("assistant", "", answer.calls),
                Message("user", "", results=use.results(answer.calls)),
            ]
        return self._written([_user_turn(question, use)], use, (), progress)

    def _written(
        self, messages: Sequence[Message], use: ToolUse, tools: Sequence[Tool], progress: Progress
    ) -> GeneratedAnswer:
        system = prompt.system(has_facts=bool(use.facts), has_tools=bool(tools))
        stream = partial(self._generator.stream, messages, system=system, tools=tools)
        return written(stream, _SupportedStatements(use, self._rule), progress)

    def _drafted(self, answer: GeneratedAnswer, hits: Sequence[Hit], facts: Sequence[Fact]) -> Draft:
        if answer.is_refusal:
            return Draft(refusal=REFUSED.format(answer.refusal))
        text = prompt.ended(answer.text) if answer.stop_reason is StopReason.MAX_TOKENS else answer.text
        if prompt.abstains(text):
            return Draft()
        return supported(_cited(prompt.statements(text, len(hits), len(facts)), hits, facts), self._rule)


class _SupportedStatements:
    """The sentences that are whole and supported, of an answer while it is written."""

    def __init__(self, use: ToolUse, rule: Unsupported) -> None:
        self._hits, self._facts, self._rule = use.hits, tuple(use.facts), rule
        self._finished: list[prompt.CitedSentence] = []
        self._statements: tuple[Statement, ...] = ()

    def __call__(self, text: str) -> Sequence[Statement]:
        """The statements of a text that grows; support is looked at again where there is another sentence."""
        finished = prompt.finished(text, len(self._hits), len(self._facts))
        if finished != self._finished:
            self._finished = finished
            self._statements = supported(_cited(finished, self._hits, self._facts), self._rule).statements
        return self._statements


def _user_turn(question: str, use: ToolUse) -> Message:
    texts = [hit.chunk_text for hit in use.hits]
    return Message("user", prompt.user_turn(question, texts, [fact_text(fact) for fact in use.facts]))


def _cited(sentences: Sequence[prompt.CitedSentence], hits: Sequence[Hit], facts: Sequence[Fact]) -> list[Statement]:
    return [
        Statement(
            sentence.text,
            tuple(hits[number - 1] for number in sentence.sources),
            facts=tuple(facts[number - 1] for number in sentence.facts),
        )
        for sentence in sentences
    ]


def supported(statements: Sequence[Statement], rule: Unsupported) -> Draft:
    """The sentences that may be said: each cites a row or a fact, and holds no number or name that these do not, or is kept."""
    cited = [statement for statement in statements if statement.cites or statement.facts]
    kept = []
    for statement in cited:
        texts = [hit.chunk_text for hit in statement.cites] + [fact_evidence(fact) for fact in statement.facts]
        missing = unsupported(statement.text, texts)
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

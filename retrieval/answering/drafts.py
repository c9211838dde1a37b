"""What an answerer writes: statements, each with the rows that it is taken from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from retrieval.ranking.fusion import Ranked
from sinks.search import Hit, Question

if TYPE_CHECKING:
    from generation.protocol import Tool
    from warehouse.facts.reader import Fact

_STOP = re.compile(r"(.*?)([.!?…。]*)", re.DOTALL)
"""A text, and the full stop that the numbers stand before."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence of an answer, without marks of citation."""

    text: str
    cites: tuple[Hit, ...]
    unsupported: tuple[str, ...] = ()
    """Its numbers and names that nothing it cites holds, where it is kept nevertheless."""
    facts: tuple[Fact, ...] = ()
    """The facts it cites."""


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer's sentences; one that cites nothing means that the sources have no answer."""

    statements: tuple[Statement, ...] = ()
    refusal: str = ""
    """What is said instead, where there is no answer for a reason of its own."""
    is_worded: bool = False
    """Whether a text model worded it: then each sentence shows the numbers of its rows, also where there is one row."""

    @property
    def cites(self) -> tuple[Hit, ...]:
        """The cited rows, each once, in the order of the text."""
        return tuple({hit.chunk_id: hit for statement in self.statements for hit in statement.cites}.values())

    @property
    def facts(self) -> tuple[Fact, ...]:
        """The cited facts, each once, in the order of the text."""
        return tuple({fact.key: fact for statement in self.statements for fact in statement.facts}.values())

    def numbers(self, statement: Statement) -> list[int]:
        """The numbers, from 1, of the rows that a sentence cites, in the order of `cites`."""
        places = {hit.chunk_id: number for number, hit in enumerate(self.cites, 1)}
        return sorted({places[hit.chunk_id] for hit in statement.cites})

    def fact_numbers(self, statement: Statement) -> list[int]:
        """The numbers, from 1, of the facts that a sentence cites, in the order of `facts`."""
        places = {fact.key: number for number, fact in enumerate(self.facts, 1)}
        return sorted({places[fact.key] for fact in statement.facts})

    @property
    def text(self) -> str:
        """The sentences with the numbers of their rows, and of their facts as `F1`; what one row alone is quoted for has none."""
        is_numbered = [self.is_worded or (bool(s.cites) and len(self.cites) > 1) for s in self.statements]
        sentences = zip(self.statements, is_numbered, strict=True)
        return " ".join(self._marked(statement) if numbered else statement.text for statement, numbered in sentences)

    def _marked(self, statement: Statement) -> str:
        text, stop = _STOP.fullmatch(statement.text).groups()  # type: ignore[union-attr] # it matches any text
        flag = " [unsupported]" if statement.unsupported else ""
        marks = [*map(str, self.numbers(statement)), *(f"F{number}" for number in self.fact_numbers(statement))]
        return f"{text} [{', '.join(marks)}]{flag}{stop}"


class FactSource(Protocol):
    """The facts of a pipeline for one question, read from the rows that its caller may see."""

    def read(self, hits: Sequence[Hit]) -> tuple[Fact, ...]:
        """The relevant facts whose parameters have a value, best first; values come from these rows, best first, and claims."""

    def tools(self, hits: Sequence[Hit]) -> tuple[Tool, ...]:
        """Tools for the relevant facts of which only what a text model gives has no value yet."""

    def call(self, name: str, arguments: Mapping[str, Any] | None, hits: Sequence[Hit]) -> Fact | None:
        """The fact of a tool, read with what a text model gave; None where there is nothing to tell.

        Raises:
            RefusedInput: it is none of `tools`, or the input is not what it asks for.
        """


class NoFacts:
    """The facts of a pipeline without any."""

    def read(self, hits: Sequence[Hit]) -> tuple[Fact, ...]:
        """Nothing."""
        return ()

    def tools(self, hits: Sequence[Hit]) -> tuple[Tool, ...]:
        """Nothing."""
        return ()

    def call(self, name: str, arguments: Mapping[str, Any] | None, hits: Sequence[Hit]) -> Fact | None:
        """Nothing."""
        return None


NO_FACTS = NoFacts()


type Progress = Callable[[Sequence[Statement]], None]
"""Is called with the sentences of an answer so far, all of them each time. A sentence that is not at its place any more is taken
back. What it raises ends the answer."""


def ignore_progress(so_far: Sequence[Statement]) -> None:
    """For an answer whose progress nobody follows."""


class Answerer(Protocol):
    """Writes an answer from relevant chunks."""

    @property
    def name(self) -> str:
        """The answerer's name, for users."""

    def draft(
        self,
        question: Question,
        sources: Sequence[Ranked],
        facts: FactSource = NO_FACTS,
        *,
        progress: Progress = ignore_progress,
    ) -> Draft:
        """Answer from these sources and facts alone, and cite some of them; an answer without citations counts as none.

        An answerer that has its sentences one by one reports them to `progress`; the draft is what counts.
        """

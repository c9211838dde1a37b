"""What an answerer writes: statements, each with the rows that it is taken from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from retrieval.fusion import Ranked
from sinks.search import Hit, Question

_STOP = re.compile(r"(.*?)([.!?…。]*)", re.DOTALL)
"""A text, and the full stop that the numbers stand before."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence of an answer, without marks of citation."""

    text: str
    cites: tuple[Hit, ...]
    unsupported: tuple[str, ...] = ()
    """Its numbers and names that no cited row holds, where it is kept nevertheless."""


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

    def numbers(self, statement: Statement) -> list[int]:
        """The numbers, from 1, of the rows that a sentence cites, in the order of `cites`."""
        places = {hit.chunk_id: number for number, hit in enumerate(self.cites, 1)}
        return sorted({places[hit.chunk_id] for hit in statement.cites})

    @property
    def text(self) -> str:
        """The sentences with the numbers of their rows; a quotation of one row alone has none."""
        numbered = self.is_worded or len(self.cites) > 1
        return " ".join(self._marked(statement) if numbered else statement.text for statement in self.statements)

    def _marked(self, statement: Statement) -> str:
        text, stop = _STOP.fullmatch(statement.text).groups()  # type: ignore[union-attr] # it matches any text
        flag = " [unsupported]" if statement.unsupported else ""
        return f"{text} [{', '.join(map(str, self.numbers(statement)))}]{flag}{stop}"


class Answerer(Protocol):
    """Writes an answer from relevant chunks."""

    @property
    def name(self) -> str:
        """The answerer's name, for users."""

    def draft(self, question: Question, sources: Sequence[Ranked]) -> Draft:
        """Answer from these sources alone, and cite some of them; an answer without citations counts as none."""

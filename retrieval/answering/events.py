"""What a listener hears while a question is answered, in order, and how it says that it wants no answer any more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from retrieval.facts.relevant import fact_json
from schemas.errors import PipelineError

if TYPE_CHECKING:
    from retrieval.answering.drafts import Statement
    from sinks.search import Hit
    from warehouse.facts.reader import Fact


class CancelledError(PipelineError):
    """Whoever asked wants no answer any more; a turn of a conversation stays unanswered."""


@dataclass(frozen=True, slots=True)
class Started:
    """The question is understood and about to be answered."""

    name: ClassVar = "started"
    standalone_question: str
    session: str | None = None
    turn: int | None = None
    turn_id: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Without what a question outside any session lacks."""
        named = {"session": self.session, "turn": self.turn, "turn_id": self.turn_id}
        return {key: value for key, value in named.items() if value is not None} | {
            "standalone_question": self.standalone_question
        }


@dataclass(frozen=True, slots=True)
class Cited:
    """A row that sentences after this cite by a number."""

    name: ClassVar = "citation"
    number: int
    hit: Hit

    def as_json(self) -> dict[str, Any]:
        """The number, and the citation as the answer has it."""
        return {"number": self.number, **citation_json(self.hit)}


@dataclass(frozen=True, slots=True)
class Said:
    """A sentence of the answer: what it cites holds what it says, and its rows were live and allowed just now."""

    name: ClassVar = "sentence"
    statement: Statement
    citations: tuple[int, ...]
    facts: tuple[int, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The sentence as the answer has it."""
        return sentence_json(self.statement, self.citations, self.facts)


@dataclass(frozen=True, slots=True)
class FactCited:
    """A fact that sentences after this cite by a number, which is counted apart from the rows'."""

    name: ClassVar = "fact"
    number: int
    fact: Fact

    def as_json(self) -> dict[str, Any]:
        """The number, and the fact as the answer has it."""
        return {"number": self.number, **fact_json(self.fact)}


@dataclass(frozen=True, slots=True)
class Restarted:
    """All that was said since `Started` is taken back."""

    name: ClassVar = "restart"

    def as_json(self) -> dict[str, Any]:
        """Nothing."""
        return {}


@dataclass(frozen=True, slots=True)
class Answered:
    """The whole answer, which stands: the last event."""

    name: ClassVar = "answer"
    answer: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The object of the public contract."""
        return self.answer


type Event = Started | Cited | Said | FactCited | Restarted | Answered
type OnEvent = Callable[[Event], None]


class Telling:
    """Tells one listener of one question. Not thread-safe, but for `cancelled`, which any thread may set."""

    def __init__(self, on_event: OnEvent | None = None, cancelled: threading.Event | None = None) -> None:
        """Without `on_event` nobody listens; what it raises ends the answer."""
        self._on_event = on_event
        self._cancelled = cancelled
        self._numbers: dict[str, int] = {}
        self._fact_numbers: dict[object, int] = {}
        self._has_said = False

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens."""
        return self._on_event is not None

    def tell(self, event: Event) -> None:
        """Tell the listener; raises CancelledError instead where it has cancelled."""
        self.raise_if_cancelled()
        if self._on_event is not None:
            self._on_event(event)

    def say(self, statement: Statement) -> None:
        """Tell of a sentence, behind the rows and the facts that no sentence before it cites."""
        for hit in statement.cites:
            if hit.chunk_id not in self._numbers:
                self._numbers[hit.chunk_id] = len(self._numbers) + 1
                self._tell_part(Cited(self._numbers[hit.chunk_id], hit))
        for fact in statement.facts:
            if fact.key not in self._fact_numbers:
                self._fact_numbers[fact.key] = len(self._fact_numbers) + 1
                self._tell_part(FactCited(self._fact_numbers[fact.key], fact))
        rows = sorted({self._numbers[hit.chunk_id] for hit in statement.cites})
        facts = sorted({self._fact_numbers[fact.key] for fact in statement.facts})
        self._tell_part(Said(statement, tuple(rows), tuple(facts)))

    def tell_answer(self, answer: dict[str, Any]) -> None:
        """Tell of the whole answer: it stands, and may be kept, so that it is too late to cancel."""
        if self._on_event is not None:
            self._on_event(Answered(answer))

    def take_back(self) -> None:
        """Take back what was said, if anything was."""
        if self._has_said:
            self._numbers, self._fact_numbers, self._has_said = {}, {}, False
            self.tell(Restarted())

    def raise_if_cancelled(self) -> None:
        """Raise CancelledError where the listener has cancelled."""
        if self._cancelled is not None and self._cancelled.is_set():
            raise CancelledError("the question was cancelled", hint="ask again")

    def _tell_part(self, event: Event) -> None:
        self._has_said = True
        self.tell(event)


def sentence_json(statement: Statement, citations: Sequence[int], facts: Sequence[int] = ()) -> dict[str, Any]:
    """The JSON object of a sentence: its rows and its facts by number."""
    return {
        "text": statement.text,
        "citations": list(citations),
        "facts": list(facts),
        "unsupported": list(statement.unsupported),
    }


def citation_json(hit: Hit) -> dict[str, Any]:
    """The JSON object of a cited row."""
    return {
        "table": hit.table,
        "key": hit.key,
        "document_id": hit.document_id,
        "chunk_index": hit.chunk_index,
        "version": hit.version,
    }

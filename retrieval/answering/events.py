"""The events of an answer while it is written, in order, and how its listener cancels it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from retrieval.answering.drafts import Draft
from retrieval.facts.relevant import fact_json
from schemas.errors import PipelineError

if TYPE_CHECKING:
    from retrieval.answering.drafts import Statement
    from sinks.search import Hit
    from warehouse.facts.reader import Fact


class CancelledError(PipelineError):
    """The question was cancelled; a turn of a conversation stays unanswered."""


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
class SentenceWritten:
    """A sentence of the answer. It is supported by what it cites, and its rows were live and allowed just now."""

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
    """All sentences since `Started` are taken back."""

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


type Event = Started | Cited | SentenceWritten | FactCited | Restarted | Answered
type OnEvent = Callable[[Event], None]


class AnswerEvents:
    """Sends the events of one question to its listener. Not thread-safe, but for `cancelled`, which any thread may set."""

    def __init__(self, on_event: OnEvent | None = None, cancelled: threading.Event | None = None) -> None:
        """Without `on_event` there is no listener; what it raises ends the answer."""
        self._on_event = on_event
        self._cancelled = cancelled
        self.sent: tuple[Statement, ...] = ()
        """The sentences that were sent since the last restart."""

    @property
    def has_listener(self) -> bool:
        """Whether anybody listens."""
        return self._on_event is not None

    def send(self, event: Event) -> None:
        """Send an event; raises CancelledError instead where the question was cancelled."""
        self.raise_if_cancelled()
        if self._on_event is not None:
            self._on_event(event)

    def send_sentence(self, statement: Statement) -> None:
        """Send a sentence, behind the rows and the facts that no sentence before it cites."""
        before, draft = Draft(self.sent), Draft((*self.sent, statement))
        self.sent = draft.statements
        for number, hit in list(enumerate(draft.cites, 1))[len(before.cites) :]:
            self.send(Cited(number, hit))
        for number, fact in list(enumerate(draft.facts, 1))[len(before.facts) :]:
            self.send(FactCited(number, fact))
        self.send(SentenceWritten(statement, tuple(draft.numbers(statement)), tuple(draft.fact_numbers(statement))))

    def send_answer(self, answer: dict[str, Any]) -> None:
        """Send the whole answer: it stands, and may be in the memory already, so that it is too late to cancel."""
        if self._on_event is not None:
            self._on_event(Answered(answer))

    def restart(self) -> None:
        """Take back the sentences that were sent, if there are any."""
        if self.sent:
            self.sent = ()
            self.send(Restarted())

    def raise_if_cancelled(self) -> None:
        """Raise CancelledError where the question was cancelled."""
        if self._cancelled is not None and self._cancelled.is_set():
            raise CancelledError("the question was cancelled", hint="ask again")


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

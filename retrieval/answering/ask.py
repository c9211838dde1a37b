"""Cited answers: searched, written, and their citations checked against the live documents."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retrieval.access import Access
from retrieval.answering.drafts import NO_FACTS, Answerer, Draft, FactSource, Statement
from retrieval.answering.events import AnswerEvents, citation_json, sentence_json
from retrieval.answering.generative import SOURCES
from retrieval.facts.relevant import Facts, as_of, fact_json
from retrieval.ranking.search import Searcher, freshness_answer
from schemas.caller import ANYONE, Caller
from schemas.errors import UnavailableError
from sinks.search import ANYTHING, Filters, Freshness, Hit, Index, Question

if TYPE_CHECKING:
    from warehouse.facts.reader import Fact

ATTEMPTS = 3
"""Tries of an answer whose cited rows change while it is written."""

NOTHING_FOUND = "Nothing relevant was found in the indexed documents."
UNMEASURED = (
    "No answer is given: nobody measured from which similarity on this model's neighbours are answers. "
    "`ragstream evaluate CONFIG GOLDEN.jsonl --calibrate` measures it."
)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of `ragstream ask`."""

    draft: Draft
    answerer: str
    freshness: Freshness
    rows: frozenset[str] = frozenset()
    """The ids of the chunks that it was written from and that were looked up for it."""

    @property
    def text(self) -> str:
        """The answer's sentences, or what is said instead."""
        loaded = as_of(self.facts) if self.draft.is_worded else ""
        sentences = " ".join(filter(None, [self.draft.text, loaded]))
        return sentences or self.draft.refusal or NOTHING_FOUND

    @property
    def cites(self) -> tuple[Hit, ...]:
        """The cited rows; the text's numbers count them from 1."""
        return self.draft.cites

    @property
    def facts(self) -> tuple[Fact, ...]:
        """The cited facts of the warehouse."""
        return self.draft.facts

    @property
    def abstained(self) -> bool:
        """Whether it says that nothing relevant was found; every other answer cites something."""
        return not self.cites and not self.facts

    def as_json(self) -> dict[str, Any]:
        """The JSON object of the public contract."""
        return {
            "answer": self.text,
            "abstained": self.abstained,
            "answerer": self.answerer,
            "sentences": [
                sentence_json(s, self.draft.numbers(s), self.draft.fact_numbers(s)) for s in self.draft.statements
            ],
            "citations": [citation_json(hit) for hit in self.cites],
            "facts": [fact_json(fact) for fact in self.facts],
            "freshness": freshness_answer(self.freshness),
        }


class _RowsChangedError(Exception):
    """A row that an answer is written from was deleted or changed, or passes the filters no more."""


class _SentenceSender:
    """Sends an answer's sentences, each after the rows that it and those before it were written from are looked up again."""

    def __init__(self, index: Index, allowed: Filters, sources: Sequence[Hit], events: AnswerEvents) -> None:
        """`sources` are the rows that the answer may be written from."""
        self._index, self._allowed, self._sources, self._events = index, allowed, sources, events

    def send(self, statements: Sequence[Statement], *, is_whole: bool = False) -> None:
        """Send the new ones of the sentences so far; raises _RowsChangedError, or CancelledError.

        If the sentences are not the ones that were sent, those are taken back; if they are fewer, only with the whole answer.
        """
        self._events.raise_if_cancelled()
        if not self._events.has_listener:
            return
        so_far, sent = tuple(statements), self._events.sent
        common = min(len(so_far), len(sent))
        if so_far[:common] != sent[:common] or (is_whole and len(so_far) < len(sent)):
            self._events.restart()
        for place in range(len(self._events.sent), len(so_far)):
            self.look_up(so_far[: place + 1])
            self._events.send_sentence(so_far[place])

    def look_up(self, statements: Sequence[Statement]) -> frozenset[str]:
        """Look up the rows that these were written from; returns the ids of their chunks.

        The values of a fact may come from any of the sources, and with rules of access a sentence tells of all of them.
        """
        is_of_all = self._allowed.access is not None or any(statement.facts for statement in statements)
        cited = [hit for statement in statements for hit in statement.cites]
        used = frozenset(hit.chunk_id for hit in (*(self._sources if is_of_all else ()), *cited))
        if not statements or not used:
            return frozenset()
        if self._index.live(sorted(used), self._allowed) != used:
            raise _RowsChangedError
        return used


class Assistant:
    """Answers questions from an index."""

    def __init__(
        self,
        searcher: Searcher,
        answerer: Answerer,
        access: Access | None = None,
        facts: Facts | None = None,
    ) -> None:
        """`access` are the pipeline's rules; without them everybody finds everything. `facts` are its facts, if it has any."""
        self._searcher = searcher
        self._answerer = answerer
        self._access = access or Access()
        self._facts = facts

    def ask(
        self, question: str, filters: Filters = ANYTHING, caller: Caller = ANYONE, events: AnswerEvents | None = None
    ) -> Answer:
        """Answer from what the filters let through and the caller may see, or say that nothing relevant was found.

        Every cited chunk is live when the answer is returned: citations are looked up again last, and an answer is rewritten
        if a cited row was deleted or changed meanwhile, or passes the filters no more. With rules of access all rows that the
        answer was written from are looked up. Each sentence is sent to `events` after such a look-up, and all of them are taken
        back where a later one fails.

        Raises:
            UnavailableError: that happened `ATTEMPTS` times.
            CancelledError: the question was cancelled.
        """
        events = events or AnswerEvents()
        allowed = self._access.applied(filters, caller)
        asked = self._searcher.question(question)
        for _ in range(ATTEMPTS):
            events.restart()
            with suppress(_RowsChangedError):
                return self._attempt(asked, allowed, caller, events)
        events.restart()
        raise UnavailableError(
            f"the rows that answer changed {ATTEMPTS} times while the answer was being written", hint="ask again"
        )

    def _attempt(self, question: Question | None, allowed: Filters, caller: Caller, events: AnswerEvents) -> Answer:
        """An answer; raises _RowsChangedError where a row that it is written from changed meanwhile."""
        events.raise_if_cancelled()
        result = self._searcher.results(question, SOURCES, allowed)
        if result.question is None:
            return Answer(Draft(), self._answerer.name, result.freshness)
        facts = self._facts_of(result.question, caller)
        sender = _SentenceSender(self._searcher.index, allowed, [source.hit for source in result.relevant], events)
        if result.abstained and (facts is NO_FACTS or not self._searcher.tuning.is_measured):
            draft = Draft(refusal="" if self._searcher.tuning.is_measured else UNMEASURED)
        else:
            draft = self._answerer.draft(result.question, result.relevant, facts, progress=sender.send)
        sender.send(draft.statements, is_whole=True)
        used = sender.look_up(draft.statements)
        draft = draft if draft.cites or draft.facts else Draft(refusal=draft.refusal)
        return Answer(draft, self._answerer.name, result.freshness, used)

    def _facts_of(self, question: Question, caller: Caller) -> FactSource:
        if self._facts is None:
            return NO_FACTS
        return self._facts.of(question, caller, self._access.allowed_rows(caller))

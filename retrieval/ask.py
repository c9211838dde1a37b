"""Cited answers: searched, written, and their citations checked against the live documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retrieval.access import Access
from retrieval.drafts import NO_FACTS, Answerer, Draft, FactSource
from retrieval.events import Telling, citation_json, sentence_json
from retrieval.facts import Facts, as_of, fact_json
from retrieval.generative import SOURCES
from retrieval.search import Searcher, freshness_answer
from schemas.caller import ANYONE, Caller
from schemas.errors import UnavailableError
from sinks.search import ANYTHING, Filters, Freshness, Hit, Question

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
        self, question: str, filters: Filters = ANYTHING, caller: Caller = ANYONE, telling: Telling | None = None
    ) -> Answer:
        """Answer from what the filters let through and the caller may see, or say that nothing relevant was found.

        Every cited chunk is live when the answer is returned: citations are looked up again last, and an answer is rewritten
        if a cited row was deleted or changed meanwhile, or passes the filters no more. With rules of access all rows that the
        answer was written from are looked up. `telling` hears each sentence after such a look, and takes all of them back
        where a later one fails.

        Raises:
            UnavailableError: that happened `ATTEMPTS` times.
            CancelledError: the listener cancelled.
        """
        telling = telling or Telling()
        allowed = self._access.applied(filters, caller)
        for _ in range(ATTEMPTS):
            telling.take_back()
            answer = self._attempt(question, allowed, caller, telling)
            if answer is not None:
                return answer
        telling.take_back()
        raise UnavailableError(
            f"the rows that answer changed {ATTEMPTS} times while the answer was being written", hint="ask again"
        )

    def _attempt(self, text: str, allowed: Filters, caller: Caller, telling: Telling) -> Answer | None:
        """An answer; None where a row that it is written from changed meanwhile."""
        telling.raise_if_cancelled()
        result = self._searcher.search(text, SOURCES, allowed)
        if result.question is None:
            return Answer(Draft(), self._answerer.name, result.freshness)
        facts = self._facts_of(result.question, caller)
        if result.abstained and (facts is NO_FACTS or not self._searcher.tuning.is_measured):
            draft = Draft(refusal="" if self._searcher.tuning.is_measured else UNMEASURED)
        else:
            draft = self._answerer.draft(result.question, result.relevant, facts)
        # The values of a fact may come from any of the rows.
        is_of_all = allowed.access is not None or bool(draft.facts)
        shown = [source.hit for source in result.relevant] if is_of_all else ()
        used = frozenset(hit.chunk_id for hit in (*shown, *draft.cites)) if draft.statements else frozenset()
        for statement in draft.statements if telling.is_heard else ():
            if not self._are_live(used, allowed):
                return None
            telling.say(statement)
        if not self._are_live(used, allowed):
            return None
        draft = draft if draft.cites or draft.facts else Draft(refusal=draft.refusal)
        return Answer(draft, self._answerer.name, result.freshness, used)

    def _are_live(self, chunk_ids: frozenset[str], allowed: Filters) -> bool:
        return not chunk_ids or self._searcher.index.live(sorted(chunk_ids), allowed) == chunk_ids

    def _facts_of(self, question: Question, caller: Caller) -> FactSource:
        if self._facts is None:
            return NO_FACTS
        return self._facts.of(question, caller, self._access.allowed_rows(caller))

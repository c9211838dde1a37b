"""Cited answers: searched, written, and their citations checked against the live documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from retrieval.drafts import Answerer, Draft
from retrieval.generative import SOURCES
from retrieval.search import Searcher, freshness_answer
from schemas.errors import UnavailableError
from sinks.search import Freshness, Hit

ATTEMPTS = 3
"""Tries of an answer whose cited rows change while it is written."""

NOTHING_FOUND = "Nothing relevant was found in the indexed documents."


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of `ragstream ask`."""

    draft: Draft
    answerer: str
    freshness: Freshness

    @property
    def text(self) -> str:
        """The answer's sentences, or what is said instead."""
        return self.draft.text or self.draft.refusal or NOTHING_FOUND

    @property
    def cites(self) -> tuple[Hit, ...]:
        """The cited rows; the text's numbers count them from 1."""
        return self.draft.cites

    @property
    def abstained(self) -> bool:
        """Whether it says that nothing relevant was found; every other answer cites something."""
        return not self.cites

    def as_json(self) -> dict[str, Any]:
        """The JSON object of the public contract."""
        return {
            "answer": self.text,
            "abstained": self.abstained,
            "answerer": self.answerer,
            "sentences": [
                {"text": s.text, "citations": self.draft.numbers(s), "unsupported": list(s.unsupported)}
                for s in self.draft.statements
            ],
            "citations": [
                {"table": c.table, "key": c.key, "document_id": c.document_id, "chunk_index": c.chunk_index}
                for c in self.cites
            ],
            "freshness": freshness_answer(self.freshness),
        }


class Assistant:
    """Answers questions from an index."""

    def __init__(self, searcher: Searcher, answerer: Answerer) -> None:
        self._searcher = searcher
        self._answerer = answerer

    def ask(self, question: str) -> Answer:
        """Answer, or say that nothing relevant was found.

        Every cited chunk is live when the answer is returned: citations are looked up again last, and an answer is rewritten
        if a cited row was deleted or changed meanwhile.

        Raises:
            UnavailableError: that happened `ATTEMPTS` times.
        """
        for _ in range(ATTEMPTS):
            result = self._searcher.search(question, SOURCES)
            if result.question is None or result.abstained:
                return Answer(Draft(), self._answerer.name, result.freshness)
            draft = self._answerer.draft(result.question, result.relevant)
            if not draft.cites:
                return Answer(Draft(refusal=draft.refusal), self._answerer.name, result.freshness)
            cited = {hit.chunk_id for hit in draft.cites}
            if self._searcher.index.live(sorted(cited)) == cited:
                return Answer(draft, self._answerer.name, result.freshness)
        raise UnavailableError(
            f"the rows that answer changed {ATTEMPTS} times while the answer was being written", hint="ask again"
        )

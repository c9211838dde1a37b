"""Cited answers: searched, written, and their citations checked against the live documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from embeddings.protocol import Embedder, EmbeddingRejected
from generation import Generator, Message, StopReason
from generation.errors import GenerationRejectedError
from retrieval import prompt
from retrieval.fusion import COVERAGE_WEIGHT, Ranked
from retrieval.search import Searcher, freshness_answer
from retrieval.sentences import sentences_of
from schemas.errors import UnavailableError
from sinks.search import Freshness, Hit, Index, Question

SOURCES = 5
"""Documents that an answer may draw on."""

ATTEMPTS = 3
"""Tries of an answer whose cited rows change while it is written."""

SHARE_OF_FIRST = 0.6
"""The least score of a further sentence, as a share of the first one's."""
LEAST_OWN = 0.35
"""The least score of a further sentence. Measured on the helpdesk's 93 answerable questions: of 13 second sentences with an
answer that the first one lacks, 12 stay; of 75 others, 23 do (`make bench-search_quality`)."""

NO_VECTOR = -1.0
"""The score of a sentence that the model rejects: less than any other."""

REFUSED = "No answer is given: the text model's guardrail refuses it ({})."

NOTHING_FOUND = "Nothing relevant was found in the indexed documents."


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer and the hits it cites; no hits mean that the sources have no answer."""

    text: str
    cites: tuple[Hit, ...]
    refusal: str = ""
    """What is said instead, where a guardrail or a filter refused."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of `ragstream ask`."""

    text: str
    answerer: str
    cites: tuple[Hit, ...]
    freshness: Freshness

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
            "citations": [
                {"table": c.table, "key": c.key, "document_id": c.document_id, "chunk_index": c.chunk_index}
                for c in self.cites
            ],
            "freshness": freshness_answer(self.freshness),
        }


class Answerer(Protocol):
    """Writes an answer from relevant chunks."""

    @property
    def name(self) -> str:
        """The answerer's name, for users."""

    def draft(self, question: Question, sources: Sequence[Ranked]) -> Draft:
        """Answer from these sources alone, and cite some of them; an answer without citations counts as none."""


class ExtractiveAnswerer:
    """Quotes the sentences with the best scores, by the measure that ranks chunks."""

    def __init__(self, index: Index, embedder: Embedder, model: str, sentences: int) -> None:
        """`model` is the embedding model's name."""
        self._index = index
        self._embedder = embedder
        self._model = model
        self._max_sentences = sentences

    @property
    def name(self) -> str:
        """`extractive`, and the embedding model."""
        return f"extractive ({self._model})"

    def draft(self, question: Question, sources: Sequence[Ranked]) -> Draft:
        """Quote the best sentence, and the next best of the same chunk, in the chunk's order.

        Sentences are ranked with their heading. Further ones must resemble the question without it too, as the heading alone
        can resemble the question.
        """
        candidates = [(s.hit, sentence) for s in sources[:3] for sentence in sentences_of(s.hit.chunk_text)]
        scores = self._scores(question, [sentence.in_context for _, sentence in candidates])
        order = sorted((at for at, score in enumerate(scores) if score > NO_VECTOR), key=lambda at: (-scores[at], at))
        if not order:
            return Draft("", ())
        cited = candidates[order[0]][0]
        best = [candidates[at][1] for at in order if candidates[at][0] is cited][: self._max_sentences]
        own = self._scores(question, [sentence.text for sentence in best])
        needed = max(LEAST_OWN, SHARE_OF_FIRST * own[0])
        others = [sentence for sentence, score in zip(best[1:], own[1:], strict=True) if score >= needed]
        chosen = sorted([best[0], *others], key=lambda sentence: sentence.place)
        return Draft(" ".join(sentence.text for sentence in chosen), (cited,))

    def _scores(self, question: Question, texts: Sequence[str]) -> list[float]:
        """The score of each text, by the measure that ranks chunks; `NO_VECTOR` without a vector."""
        if not texts:
            return []
        vectors = self._embedder.embed_documents(texts)
        shares = self._index.coverage(question.text, texts)
        return [
            NO_VECTOR
            if isinstance(vector, EmbeddingRejected)
            else float(np.dot(vector, question.vector)) + COVERAGE_WEIGHT * share
            for vector, share in zip(vectors, shares, strict=True)
        ]


class GenerativeAnswerer:
    """Asks a text model. Citations are numbers of the prompt's sources; other numbers are dropped."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

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
                return Draft("", (), REFUSED.format(answer.refusal))
            text = prompt.ended(answer.text) if answer.stop_reason is StopReason.MAX_TOKENS else answer.text
            numbers = prompt.cited(text, len(hits))
            if prompt.abstains(text) or not numbers:
                return Draft("", ())
            return Draft(prompt.without_unknown(text, len(hits)), tuple(hits[n - 1] for n in numbers))
        raise AssertionError


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
                return self._abstain(result.freshness)
            draft = self._answerer.draft(result.question, result.relevant)
            if not draft.cites:
                return self._abstain(result.freshness, draft.refusal)
            cited = {hit.chunk_id for hit in draft.cites}
            if self._searcher.index.live(sorted(cited)) == cited:
                return Answer(draft.text, self._answerer.name, draft.cites, result.freshness)
        raise UnavailableError(
            f"the rows that answer changed {ATTEMPTS} times while the answer was being written", hint="ask again"
        )

    def _abstain(self, freshness: Freshness, refusal: str = "") -> Answer:
        return Answer(refusal or NOTHING_FOUND, self._answerer.name, (), freshness)

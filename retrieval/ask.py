"""Cited answers: found, written, and checked against what is live at the moment of answering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from embeddings.protocol import EmbeddingRejected
from retrieval import prompt
from retrieval.fusion import COVERAGE_WEIGHT, Ranked
from retrieval.generate import GenerationRejectedError, Message
from retrieval.search import freshness_answer
from retrieval.sentences import sentences_of
from schemas.errors import UnavailableError

if TYPE_CHECKING:
    from embeddings.protocol import Embedder
    from retrieval.generate import BedrockGenerator
    from retrieval.search import Searcher
    from sinks.search import Freshness, Hit, Index, Question

SOURCES = 5
"""Documents that an answer may draw on."""

ATTEMPTS = 3
"""Times an answer is written anew because a row it cites has changed meanwhile."""

SHARE_OF_FIRST = 0.6
"""Of the first sentence's own score: what another needs to be quoted beside it."""
LEAST_OWN = 0.35
"""What it needs at least. Measured on the helpdesk's 93 answerable questions: of 13 second sentences that hold what was asked and
the first does not, 12 stay; of 75 others, 23 do (`make bench-search_quality`)."""

NO_VECTOR = -1.0
"""The score of a sentence that the model refuses: less than any other."""

NOTHING_FOUND = "Nothing relevant was found in the indexed documents."


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer and the hits it cites; no hits mean that the answerer found no answer in what it was given."""

    text: str
    cites: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What `ragstream ask` tells."""

    text: str
    answerer: str
    cites: tuple[Hit, ...]
    freshness: Freshness

    @property
    def abstained(self) -> bool:
        """Whether it says only that nothing relevant was found; every other answer cites something."""
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
    """Writes an answer from chunks that were found relevant."""

    @property
    def name(self) -> str:
        """Who answers, for the reader."""
        ...

    def draft(self, question: Question, sources: Sequence[Ranked]) -> Draft:
        """Answer from these sources alone, citing some of them; an answer without a citation counts as none."""
        ...


class ExtractiveAnswerer:
    """Quotes the sentences that score best, by the measure that ranks chunks; invents nothing, and joins nothing."""

    def __init__(self, index: Index, embedder: Embedder, model: str, sentences: int) -> None:
        """Take the parts; `model` is the embedding model's name."""
        self._index = index
        self._embedder = embedder
        self._model = model
        self._most = sentences

    @property
    def name(self) -> str:
        """`extractive`, and the model that compares the sentences."""
        return f"extractive ({self._model})"

    def draft(self, question: Question, sources: Sequence[Ranked]) -> Draft:
        """Quote the best sentence of all, and the next best of the same chunk, in the order they stand there.

        Sentences are ranked in the context of their heading, which is why the next ones must resemble the question without
        it too: under the heading of an answer everything looks like one.
        """
        given = [(s.hit, sentence) for s in sources[:3] for sentence in sentences_of(s.hit.chunk_text)]
        scores = self._scores(question, [sentence.in_context for _, sentence in given])
        order = sorted((at for at, score in enumerate(scores) if score > NO_VECTOR), key=lambda at: (-scores[at], at))
        if not order:
            return Draft("", ())
        cited = given[order[0]][0]
        best = [given[at][1] for at in order if given[at][0] is cited][: self._most]
        own = self._scores(question, [sentence.text for sentence in best])
        needed = max(LEAST_OWN, SHARE_OF_FIRST * own[0])
        others = [sentence for sentence, score in zip(best[1:], own[1:], strict=True) if score >= needed]
        chosen = sorted([best[0], *others], key=lambda sentence: sentence.place)
        return Draft(" ".join(sentence.text for sentence in chosen), (cited,))

    def _scores(self, question: Question, texts: Sequence[str]) -> list[float]:
        """How well each text resembles the question, by the measure that ranks chunks; `NO_VECTOR` if it has none."""
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
    """Asks a text model. Its citations are numbers of the prompt's sources; all else it names is dropped."""

    def __init__(self, generator: BedrockGenerator) -> None:
        """Take the model."""
        self._generator = generator

    @property
    def name(self) -> str:
        """`generative`, and the model that writes."""
        return f"generative ({self._generator.model})"

    def draft(self, question: Question, sources: Sequence[Ranked]) -> Draft:
        """Ask once, with fewer sources when they are too long for the model."""
        for most in (SOURCES, 2, 1):
            hits = [source.hit for source in sources[:most]]
            turn = prompt.user_turn(question.text, [hit.chunk_text for hit in hits])
            try:
                answer = self._generator.converse([Message("user", turn)], system=prompt.SYSTEM)
            except GenerationRejectedError:
                if most == 1:
                    raise
                continue
            said = prompt.ended(answer.text) if answer.stop_reason == "max_tokens" else answer.text
            numbers = prompt.cited(said, len(hits))
            if prompt.says_nothing(said) or not numbers:
                return Draft("", ())
            return Draft(prompt.without_unknown(said, len(hits)), tuple(hits[n - 1] for n in numbers))
        raise AssertionError


class Assistant:
    """Answers questions from an index."""

    def __init__(self, searcher: Searcher, answerer: Answerer) -> None:
        """Take the parts."""
        self._searcher = searcher
        self._answerer = answerer

    def ask(self, question: str) -> Answer:
        """Answer, or say that nothing relevant was found.

        Just before it is given, every citation is looked up again: a row deleted or rewritten while the answer was
        being written makes it be written anew, so no answer cites a chunk that was not live when it was given.
        """
        for _ in range(ATTEMPTS):
            found = self._searcher.search(question, SOURCES)
            if found.question is None or found.abstained:
                return self._abstain(found.freshness)
            draft = self._answerer.draft(found.question, found.relevant)
            if not draft.cites:
                return self._abstain(found.freshness)
            wanted = {hit.chunk_id for hit in draft.cites}
            if self._searcher.index.live(sorted(wanted)) == wanted:
                return Answer(draft.text, self._answerer.name, draft.cites, found.freshness)
        raise UnavailableError(
            f"the rows that answer changed {ATTEMPTS} times while the answer was being written", hint="ask again"
        )

    def _abstain(self, freshness: Freshness) -> Answer:
        return Answer(NOTHING_FOUND, self._answerer.name, (), freshness)

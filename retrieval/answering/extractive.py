"""Answers in whole sentences of one or several rows, without a text model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embeddings.protocol import Embedder, EmbeddingRejected
from retrieval.answering.answer_type import expected_type, holds
from retrieval.answering.drafts import NO_FACTS, Draft, FactSource, Progress, Statement, ignore_progress
from retrieval.answering.sentences import Sentence, sentences_of
from retrieval.facts.relevant import fact_sentence
from retrieval.ranking.fusion import Ranked
from sinks.search import Index, Question

READ = 3
"""Rows, the best first, whose sentences are looked at."""

COVERAGE_WEIGHT = 0.6
"""The weight of a sentence's coverage beside its similarity."""
ROW_WEIGHT = 0.5
"""The weight of its row's score."""
TYPE_WEIGHT = 0.1
"""What a sentence gains that holds a number, a time or a person where the question asks for one."""

SHARE_OF_FIRST = 0.6
"""The least score of a further sentence of the best one's row, as a share of the best one's, both without their headings."""
LEAST_OWN = 0.35
"""The least score of a further sentence without its heading, as the heading alone can resemble the question."""
SHARE_ELSEWHERE = 0.8
"""The least score of a sentence of another row, as a share of the best one's."""

NO_VECTOR = -1.0
"""The score of a sentence that the model rejects: less than any other."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    source: int
    sentence: Sentence
    score: float
    own: float
    """Its score without heading and row."""


class ExtractiveAnswerer:
    """Quotes the sentences with the best scores, by the measure that ranks chunks.

    The weights and shares above were measured on labelled questions (`make bench-search_quality`).
    """

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

    def draft(
        self,
        question: Question,
        sources: Sequence[Ranked],
        facts: FactSource = NO_FACTS,
        *,
        progress: Progress = ignore_progress,
    ) -> Draft:
        """Quote the best sentence, then others that resemble the question nearly as much, row by row in the rows' order.

        Behind them is a sentence of its own for each fact of the quoted rows.
        """
        quoted = self._quoted(question, sources)
        progress(quoted)
        read = facts.read([hit for statement in quoted for hit in statement.cites])
        return Draft((*quoted, *(Statement(fact_sentence(fact), (), facts=(fact,)) for fact in read)))

    def _quoted(self, question: Question, sources: Sequence[Ranked]) -> tuple[Statement, ...]:
        ranked = sorted(self._candidates(question, sources), key=lambda c: (-c.score, c.source, c.sentence.place))
        if not ranked:
            return ()
        chosen = _chosen(ranked, self._max_sentences)
        chosen.sort(key=lambda c: (c.source != ranked[0].source, c.source, c.sentence.place))
        return tuple(Statement(c.sentence.text, (sources[c.source].hit,)) for c in chosen)

    def _candidates(self, question: Question, sources: Sequence[Ranked]) -> list[_Candidate]:
        sentences = [(at, s) for at, source in enumerate(sources[:READ]) for s in sentences_of(source.hit.chunk_text)]
        texts = [sentence.in_context for _, sentence in sentences] + [sentence.text for _, sentence in sentences]
        scores = self._scores(question, texts)
        asked = expected_type(question.text)
        candidates = []
        for (at, sentence), score, own in zip(
            sentences, scores[: len(sentences)], scores[len(sentences) :], strict=True
        ):
            gain = TYPE_WEIGHT * holds(asked, sentence.text)
            if score > NO_VECTOR:
                total = score + gain + ROW_WEIGHT * sources[at].score
                candidates.append(_Candidate(at, sentence, total, own + gain))
        return candidates

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


def _chosen(ranked: Sequence[_Candidate], most: int) -> list[_Candidate]:
    """The best candidate and those that are nearly as good, no text twice."""
    best = ranked[0]
    needed = max(LEAST_OWN, SHARE_OF_FIRST * best.own)
    chosen = {best.sentence.text: best}
    for other in ranked[1:]:
        if len(chosen) == most:
            break
        beside = other.source == best.source and other.own >= needed
        elsewhere = other.score >= SHARE_ELSEWHERE * best.score and other.own >= LEAST_OWN
        if beside or (elsewhere and other.source != best.source):
            chosen.setdefault(other.sentence.text, other)
    return list(chosen.values())

"""Facts of the warehouse for a question: which are relevant, with the values of their parameters, and as text."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from embeddings.protocol import Embedder, EmbeddingRejected, Vector
from retrieval.facts.calls import RefusedInput, input_values, tool_of
from retrieval.ranking.fusion import Tuning
from schemas.caller import Caller
from schemas.errors import PipelineError
from sinks.search import Hit, Index, Question
from warehouse.facts.values import as_text, unquoted

if TYPE_CHECKING:
    from generation.protocol import Tool
    from warehouse.facts.allowed import AllowedRows
    from warehouse.facts.config import FactConfig
    from warehouse.facts.reader import Fact, FactReader

_LOG = logging.getLogger(__name__)

MOST_FACTS = 2
"""Facts of one answer that need no text model."""
MOST_CHARACTERS = 4_000
"""Of a fact's rows in a prompt."""
_MOST_OF_A_VALUE = 500
MOST_TOOLS = 4
"""Facts of one question that a text model may ask for."""


class Facts:
    """The facts of a pipeline, for the questions of one index. Thread-safe where its parts are."""

    def __init__(self, reader: FactReader, index: Index, embedder: Embedder, tuning: Tuning) -> None:
        """A fact is relevant as a chunk is: by the similarity and the common words of its description."""
        self._reader, self._index, self._embedder, self._tuning = reader, index, embedder, tuning

    def of(self, question: Question, caller: Caller, allowed: AllowedRows | None = None) -> QuestionFacts:
        """The facts of a question, from the rows that its caller may see (None: all)."""
        return QuestionFacts(self, question, caller, allowed)

    def relevant(self, question: Question) -> list[FactConfig]:
        """The facts whose description is relevant, best first. A description is embedded once in a process."""
        facts = list(self._reader.facts.values())
        try:
            vectors = _DESCRIPTIONS.vectors([fact.description for fact in facts], self._embedder)
        except PipelineError as error:  # the answer does not depend on facts
            _LOG.warning("all facts are left out", extra={"context": {"error": error.message}})
            return []
        coverages = self._index.coverage(question.text, [fact.description for fact in facts])
        scored = []
        for fact, vector, coverage in zip(facts, vectors, coverages, strict=True):
            if vector is None:
                continue
            similarity = float(np.dot(vector, question.vector))
            if similarity >= self._tuning.relevance.needed(coverage):
                scored.append((-self._tuning.fusion.score(similarity, coverage), fact.name))
        return [self._reader.facts[name] for _, name in sorted(scored)]

    def result(self, fact: FactConfig, values: Mapping[str, str], allowed: AllowedRows | None) -> Fact | None:
        """A fact with rows. One that the warehouse refuses or does not give in time is None, and logged by its name."""
        try:
            read = self._reader.read(fact.name, values, allowed)
        except PipelineError as error:
            _LOG.warning("fact is left out", extra={"context": {"fact": fact.name, "error": error.message}})
            return None
        return read if read is not None and read.rows else None


class QuestionFacts:
    """See `retrieval.answering.drafts.FactSource`. Not thread-safe; no answer depends on a fact that cannot be read."""

    def __init__(self, facts: Facts, question: Question, caller: Caller, allowed: AllowedRows | None) -> None:
        self._facts, self._question, self._caller, self._allowed = facts, question, caller, allowed

    @cached_property
    def _relevant(self) -> list[FactConfig]:
        return self._facts.relevant(self._question)

    def read(self, hits: Sequence[Hit]) -> tuple[Fact, ...]:
        """Read what needs no text model, at most `MOST_FACTS`."""
        facts: list[Fact] = []
        for fact in self._relevant:
            values = None if fact.asked or len(facts) == MOST_FACTS else values_of(fact, hits, self._caller)
            read = None if values is None else self._facts.result(fact, values, self._allowed)
            facts += [] if read is None else [read]
        return tuple(facts)

    def tools(self, hits: Sequence[Hit]) -> tuple[Tool, ...]:
        """At most `MOST_TOOLS` tools; each has the name of its fact."""
        asked = (fact for fact in self._relevant if fact.asked)
        return tuple(tool_of(fact) for fact in asked if values_of(fact, hits, self._caller) is not None)[:MOST_TOOLS]

    def call(self, name: str, arguments: Mapping[str, Any] | None, hits: Sequence[Hit]) -> Fact | None:
        """Read the fact of a tool: its values are those the model gave, of the rows, and of the caller's claims."""
        offered = {tool.name for tool in self.tools(hits)}
        fact = next((fact for fact in self._relevant if fact.name == name and name in offered), None)
        if fact is None:
            raise RefusedInput(f"there is no such tool, there is: {', '.join(sorted(offered))}")
        own, of_model = values_of(fact, hits, self._caller), input_values(fact, arguments)
        read = None if own is None else self._facts.result(fact, own | of_model, self._allowed)
        return None if read is None else replace(read, evident=self._evident(fact, of_model))

    def _evident(self, fact: FactConfig, of_model: Mapping[str, str]) -> tuple[str, ...]:
        """The model's values that can claim nothing of their own: times and choices, and what stands in the question."""
        question = self._question.text.casefold()
        return tuple(
            value
            for name, value in of_model.items()
            if fact.asked[name].choices
            or fact.asked[name].type in {"date", "timestamp", "boolean"}
            or value.casefold() in question
        )


class _Descriptions:
    """Vectors of descriptions by the model's fingerprint, for the whole process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._vectors: dict[tuple[str, str], Vector | None] = {}

    def vectors(self, texts: Sequence[str], embedder: Embedder) -> list[Vector | None]:
        """The vector of each text, None where the model refuses it; missing ones are asked for together, once."""
        fingerprint = embedder.fingerprint
        with self._lock:
            missing = [text for text in dict.fromkeys(texts) if (fingerprint, text) not in self._vectors]
            for text, vector in zip(missing, embedder.embed_documents(missing) if missing else (), strict=True):
                self._vectors[fingerprint, text] = None if isinstance(vector, EmbeddingRejected) else vector
            return [self._vectors[fingerprint, text] for text in texts]


_DESCRIPTIONS = _Descriptions()


def values_of(fact: FactConfig, cited: Sequence[Hit], caller: Caller) -> dict[str, str] | None:
    """The value of each parameter but those that a text model gives; None when one has none, or one that is not of its type."""
    first: dict[str, Hit] = {}
    for hit in cited:
        first.setdefault(hit.table, hit)
    values = {}
    for name, parameter in fact.parameters.items():
        if parameter.model is not None:
            continue
        if parameter.claim is not None:
            value: Any = caller.claims.get(parameter.claim)
        else:
            row = first.get(str(parameter.table))
            value = None if row is None else {**row.metadata, **row.key}.get(str(parameter.column))
        text = as_text(value, parameter.type)
        if text is None:
            return None
        values[name] = text
    return values


def fact_sentence(fact: Fact) -> str:
    """A fact as one line of an answer: its description, its rows, and as of when."""
    more = " and more" if fact.truncated else ""
    as_of = f" (loaded {fact.loaded_at})" if fact.loaded_at else ""
    return f"{fact.description}: {'; '.join(_rows(fact))}{more}{as_of}."


def fact_text(fact: Fact) -> str:
    """A fact as a source of a prompt, at most `MOST_CHARACTERS` and a line."""
    return "\n".join(
        [fact.description, *(f"where {name} is {value}" for name, value in fact.asked), *_evidence_lines(fact)]
    )


def fact_evidence(fact: Fact) -> str:
    """What a sentence that cites a fact is checked against: a free text that a model gave is no evidence of what it says."""
    return "\n".join([fact.description, *fact.evident, *_evidence_lines(fact)])


def _evidence_lines(fact: Fact) -> list[str]:
    """Its rows as far as they are shown, and when it was loaded."""
    lines, left = [], MOST_CHARACTERS
    for line in _rows(fact):
        left -= len(line)
        if left < 0:
            break
        lines.append(line)
    more = ["and more rows"] if fact.truncated or len(lines) < len(fact.rows) else []
    if fact.loaded_at is None:
        return [*lines, *more]
    day, time = fact.loaded_at[:10], fact.loaded_at[11:19]
    return [*lines, *more, f"loaded on {day} at {time} UTC"]


def as_of(facts: Sequence[Fact]) -> str:
    """The sentence that says when the facts of an answer were loaded; empty without any."""
    loaded: dict[str, list[str]] = {}
    for number, fact in enumerate(facts, 1):
        if fact.loaded_at is not None:
            loaded.setdefault(fact.loaded_at, []).append(f"F{number}")
    return " ".join(f"({', '.join(names)} loaded {moment}.)" for moment, names in loaded.items())


def fact_json(fact: Fact) -> dict[str, Any]:
    """The JSON object of a cited fact."""
    return {
        "fact": fact.name,
        "columns": list(fact.columns),
        "rows": [list(row) for row in fact.rows],
        "truncated": fact.truncated,
        "loaded_at": fact.loaded_at,
        "parameters": dict(fact.asked),
    }


def _rows(fact: Fact) -> list[str]:
    return [
        ", ".join(f"{column} {_shown(value)}" for column, value in zip(fact.columns, row, strict=True))
        for row in fact.rows
    ]


def _shown(value: object) -> str:
    text = "none" if value is None else unquoted(value)
    return text if len(text) <= _MOST_OF_A_VALUE else f"{text[:_MOST_OF_A_VALUE]}…"

"""Facts of the warehouse for a question: which are relevant, with the values of their parameters, and as a sentence."""

from __future__ import annotations

import datetime as dt
import decimal
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embeddings.protocol import Embedder, EmbeddingRejected, Vector
from retrieval.fusion import Tuning
from schemas.caller import Caller
from schemas.errors import PipelineError
from sinks.search import Hit, Index, Question

if TYPE_CHECKING:
    from warehouse.facts.config import FactConfig, ParameterType
    from warehouse.facts.reader import Allowed, Fact, FactReader

_LOG = logging.getLogger(__name__)

MOST_FACTS = 2
"""Facts of one answer."""
_INTEGER = re.compile(r"[+-]?\d{1,19}")


class Facts:
    """The facts of a pipeline, for the questions of one index."""

    def __init__(self, reader: FactReader, index: Index, embedder: Embedder, tuning: Tuning) -> None:
        """A fact is relevant as a chunk is: by the similarity and the common words of its description."""
        self._reader, self._index, self._embedder, self._tuning = reader, index, embedder, tuning
        self._vectors: dict[str, Vector] | None = None

    def read(
        self, question: Question, cited: Sequence[Hit], caller: Caller, allowed: Allowed | None = None
    ) -> tuple[Fact, ...]:
        """Read the relevant facts whose parameters have a value, best first, from the rows that the caller may see (None: all).

        Values come from the cited rows, best first, and from the caller's claims. One that the warehouse refuses, or does not
        give in time, is left out and logged by its name: the answer does not depend on it.
        """
        facts: list[Fact] = []
        for fact in self._relevant(question):
            values = values_of(fact, cited, caller)
            if values is None or len(facts) == MOST_FACTS:
                continue
            try:
                read = self._reader.read(fact.name, values, allowed)
            except PipelineError as error:
                _LOG.warning("fact is left out", extra={"context": {"fact": fact.name, "error": error.message}})
            else:
                facts += [read] if read is not None and read.rows else []
        return tuple(facts)

    def _relevant(self, question: Question) -> list[FactConfig]:
        facts = list(self._reader.facts.values())
        if self._vectors is None:
            embeddings = self._embedder.embed_documents([fact.description for fact in facts])
            self._vectors = {
                fact.name: vector
                for fact, vector in zip(facts, embeddings, strict=True)
                if not isinstance(vector, EmbeddingRejected)
            }
        coverages = self._index.coverage(question.text, [fact.description for fact in facts])
        scored = []
        for fact, coverage in zip(facts, coverages, strict=True):
            if fact.name not in self._vectors:
                continue
            similarity = float(np.dot(self._vectors[fact.name], question.vector))
            if similarity >= self._tuning.relevance.needed(coverage):
                scored.append((-self._tuning.fusion.score(similarity, coverage), fact.name))
        return [self._reader.facts[name] for _, name in sorted(scored)]


def values_of(fact: FactConfig, cited: Sequence[Hit], caller: Caller) -> dict[str, str] | None:
    """The value of each parameter as text; None when one has none, or one that is not of its type."""
    first: dict[str, Hit] = {}
    for hit in cited:
        first.setdefault(hit.table, hit)
    values = {}
    for name, parameter in fact.parameters.items():
        if parameter.claim is not None:
            value: Any = caller.claims.get(parameter.claim)
        else:
            row = first.get(str(parameter.table))
            value = None if row is None else {**row.metadata, **row.key}.get(str(parameter.column))
        text = _as_text(value, parameter.type)
        if text is None:
            return None
        values[name] = text
    return values


def _as_text(value: Any, kind: ParameterType) -> str | None:
    """A value as text that casts to its type; None without one. The Data API takes no empty text."""
    if not isinstance(value, str | int | float | decimal.Decimal):
        return None
    text = str(value).lower() if isinstance(value, bool) else str(value)
    try:
        text = format(decimal.Decimal(text), "f") if kind == "decimal" else text
        return text if text and "\0" not in text and _IS_VALID[kind](text) else None
    except (ValueError, decimal.InvalidOperation):
        return None


_IS_VALID: Mapping[ParameterType, Callable[[str], Any]] = {
    "text": bool,
    "integer": lambda text: _INTEGER.fullmatch(text) and -(2**63) <= int(text) < 2**63,
    "decimal": lambda text: decimal.Decimal(text).is_finite(),
    "boolean": {"true", "false"}.__contains__,
    "date": dt.date.fromisoformat,
    "timestamp": dt.datetime.fromisoformat,
}


def fact_sentence(fact: Fact) -> str:
    """A fact as one line of an answer: its description, its rows, and as of when."""
    rows = "; ".join(
        ", ".join(f"{column} {_shown(value)}" for column, value in zip(fact.columns, row, strict=True))
        for row in fact.rows
    )
    more = " and more" if fact.truncated else ""
    as_of = f" (loaded {fact.loaded_at})" if fact.loaded_at else ""
    return f"{fact.description}: {rows}{more}{as_of}."


def fact_json(fact: Fact) -> dict[str, Any]:
    """The JSON object of a cited fact."""
    return {
        "fact": fact.name,
        "columns": list(fact.columns),
        "rows": [list(row) for row in fact.rows],
        "truncated": fact.truncated,
        "loaded_at": fact.loaded_at,
    }


def _shown(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

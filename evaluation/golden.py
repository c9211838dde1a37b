"""The quality gate of a migration: two index versions answer the same questions, and their results are compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrieval.questions import lines_of
from retrieval.ranking.search import Searcher
from schemas.errors import ConfigurationError
from transforms.values import exact_json

FIRST = 10
"""Results of a search that are compared."""
TOLERANCE = 0.05
"""The share of expected rows by which a newer index version may be worse."""
LEAST_PROBED = 0.8
"""The share of its own chunk texts that an index version must find as questions."""


@dataclass(frozen=True, slots=True)
class GoldenQuestion:
    """A question, and the rows (table, key) that a search should return."""

    query: str
    expected: frozenset[tuple[str, str]]
    """None: no row answers it, and an assistant must abstain."""
    kind: str = ""
    """What its figures are grouped by; of a question that no row answers, `near` or `far` says how much the rows resemble it."""
    answer_contains: tuple[str, ...] = ()
    """Phrases, any of which proves an answer right."""
    is_draft: bool = False
    """Whether nobody looked at it since it was proposed."""


@dataclass(frozen=True, slots=True)
class Golden:
    """The comparison of two index versions, in shares from 0 to 1."""

    questions: int
    overlap: float
    """The share of the older one's results that the newer one has as well."""
    expected_old: float | None
    """The share of expected rows that the older one found; None if no question names any."""
    expected_new: float | None

    @property
    def good(self) -> bool:
        """Whether the newer one finds enough of the expected rows."""
        if self.expected_old is None or self.expected_new is None:
            return True
        return self.expected_new >= self.expected_old - TOLERANCE


def read_golden(path: str) -> list[GoldenQuestion]:
    """Read a JSONL file of `{"query": …, "expected": [{"table": …, "key": {…}}, …]}`; `expected` may be left out.

    `kind`, `answer_contains` and `draft` may be added; `"id": 1` is short for `"key": {"id": 1}`. Other fields are ignored.

    Raises:
        ConfigurationError: it cannot be read, or a line is no question.
    """
    questions = [_question(line, where) for where, line in lines_of(path, "questions", "GOLDEN_UNREADABLE")]
    if not questions:
        raise ConfigurationError(f"{path}: there is no question in it", condition="GOLDEN_INVALID", hint=_FORM)
    return questions


def compare(old: Searcher, new: Searcher, questions: Sequence[GoldenQuestion]) -> Golden:
    """Ask both index versions all questions."""
    rows = [(question.expected, _rows(old, question.query), _rows(new, question.query)) for question in questions]
    before, both = sum(len(o) for _, o, _ in rows), sum(len(o & n) for _, o, n in rows)
    expected = sum(len(e) for e, _, _ in rows)
    shares: tuple[float | None, float | None] = (None, None)
    if expected:
        shares = sum(len(e & o) for e, o, _ in rows) / expected, sum(len(e & n) for e, _, n in rows) / expected
    return Golden(len(questions), both / before if before else 1.0, *shares)


def probe(new: Searcher, texts: Sequence[str]) -> float:
    """The share of an index version's chunk texts that it finds as questions."""
    hits = sum(any(ranked.hit.chunk_text == text for ranked in new.search(text, FIRST).results) for text in texts)
    return hits / len(texts) if texts else 1.0


_FORM = (
    'each line is {"query": "…", "expected": [{"table": "…", "key": {…}}]}, beside "kind", "answer_contains", "draft"'
)


def _question(line: str, where: str) -> GoldenQuestion:
    try:
        parsed = json.loads(line)
        expected = frozenset(
            (row["table"], key_of(row["key"] if "key" in row else {"id": row["id"]}))
            for row in parsed.get("expected", ())
        )
        phrases = tuple(map(str, parsed.get("answer_contains", ())))
        if isinstance(parsed["query"], str):
            kind, is_draft = str(parsed.get("kind", "")), bool(parsed.get("draft", False))
            return GoldenQuestion(parsed["query"], expected, kind, phrases, is_draft)
    except (ValueError, AttributeError, KeyError, TypeError):
        pass
    raise ConfigurationError(f"{where}: no question", condition="GOLDEN_INVALID", hint=_FORM)


def _rows(searcher: Searcher, query: str) -> set[tuple[str, str]]:
    return {(ranked.hit.table, key_of(ranked.hit.key)) for ranked in searcher.search(query, FIRST).results}


def key_of(key: Mapping[str, Any]) -> str:
    """A row's key as text, whatever the order of its columns."""
    return exact_json.dumps(dict(key), sort_keys=True)

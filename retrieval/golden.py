"""Two index versions of a store asked the same questions: does the newer answer as well, before readers use it?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retrieval.questions import lines_of
from schemas.errors import ConfigurationError
from transforms.values import exact_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retrieval.search import Searcher

FIRST = 10
"""Results of a search that count."""
TOLERANCE = 0.05
"""Share of the expected rows that a newer index version may find fewer of."""
LEAST_PROBED = 0.8
"""Share of its own texts that an index version must find when it is asked for them word for word."""


@dataclass(frozen=True, slots=True)
class GoldenQuestion:
    """A question, and the rows (table, key) that should be found."""

    query: str
    expected: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Golden:
    """What both index versions found, in shares from 0 to 1."""

    questions: int
    overlap: float
    """Of the older one's results, those that the newer one has as well."""
    expected_old: float | None
    """Expected rows found by the older one; None where no question names any."""
    expected_new: float | None

    @property
    def good(self) -> bool:
        """Whether the newer one finds enough of what is expected."""
        if self.expected_old is None or self.expected_new is None:
            return True
        return self.expected_new >= self.expected_old - TOLERANCE


def read_golden(path: str) -> list[GoldenQuestion]:
    """Read a JSONL file of `{"query": …, "expected": [{"table": …, "key": {…}}, …]}`; `expected` may be left out.

    Raises:
        ConfigurationError: it cannot be read, or a line is none.
    """
    found = [_question(line, where) for where, line in lines_of(path, "questions", "GOLDEN_UNREADABLE")]
    if not found:
        raise ConfigurationError(f"{path}: there is no question in it", condition="GOLDEN_INVALID", hint=_FORM)
    return found


def compare(old: Searcher, new: Searcher, questions: Sequence[GoldenQuestion]) -> Golden:
    """Ask both."""
    kept = before = wanted = found_old = found_new = 0
    for each in questions:
        one, other = _rows(old, each.query), _rows(new, each.query)
        before, kept = before + len(one), kept + len(one & other)
        wanted += len(each.expected)
        found_old, found_new = found_old + len(each.expected & one), found_new + len(each.expected & other)
    shares = (found_old / wanted, found_new / wanted) if wanted else (None, None)
    return Golden(len(questions), kept / before if before else 1.0, *shares)


def probe(new: Searcher, texts: Sequence[str]) -> float:
    """The share of chunk texts of an index version that it finds when it is asked for them."""
    found = sum(any(each.hit.chunk_text == text for each in new.search(text, FIRST).results) for text in texts)
    return found / len(texts) if texts else 1.0


_FORM = 'each line is {"query": "…", "expected": [{"table": "…", "key": {…}}]}'


def _question(line: str, where: str) -> GoldenQuestion:
    try:
        told = json.loads(line)
        expected = frozenset((row["table"], _key(row["key"])) for row in told.get("expected", ()))
        if isinstance(told["query"], str):
            return GoldenQuestion(told["query"], expected)
    except (ValueError, AttributeError, KeyError, TypeError):
        pass
    raise ConfigurationError(f"{where}: no question", condition="GOLDEN_INVALID", hint=_FORM)


def _rows(searcher: Searcher, query: str) -> set[tuple[str, str]]:
    return {(each.hit.table, _key(each.hit.key)) for each in searcher.search(query, FIRST).results}


def _key(key: Mapping[str, Any]) -> str:
    return exact_json.dumps(dict(key), sort_keys=True)

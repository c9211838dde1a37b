"""Inverse document frequency: the information that each word of a question carries, and the words worth searching for. Pure."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from transforms.documents.languages import OWN, marked

MOST_COUNTED = 4_000
"""Distinct words of a question whose frequency is counted, in the order of the text; it bounds the cost of a pasted book."""

MOST_WEIGHED = 25
"""Words that a question is weighed by; Lucene's MoreLikeThis takes as many of a text (`DEFAULT_MAX_QUERY_TERMS`)."""

COMMON_AT = 2_000
"""Rows at which a word counts as common: it is counted no further and, if there is a rarer word, not searched for.
It bounds the work of a question, whatever the size of the store."""

_QUESTION_SECONDS = 5.0


@dataclass(frozen=True)
class WeighedWords:
    """A question's words, as the store's analyzer gives them."""

    shares: Mapping[str, float]
    """The share of the question's information that each carries; they sum to 1."""
    searched: Sequence[str]
    """The words worth searching for."""

    @classmethod
    def of(cls, counts: Mapping[str, int], total: int) -> WeighedWords:
        """Weigh words by the number of rows (of `total`) that contain each."""
        considered = weighed(counts)
        return cls(shares(considered, total), worth_searching(considered))

    @classmethod
    def joined(cls, parts: Mapping[str, WeighedWords]) -> WeighedWords:
        """The words of several languages as a store keeps them. Shares sum to 1 in each, as no chunk is in two."""
        return cls(
            {marked(word, language): share for language, part in parts.items() for word, share in part.shares.items()},
            [marked(word, language) for language, part in parts.items() for word in part.searched],
        )

    def coverage(self, words: Iterable[str]) -> float:
        """The share of the question's information that these words carry."""
        return sum(self.shares.get(word, 0.0) for word in set(words))


class Remembered:
    """The weights of recent questions, for as long as an answer takes: other rows give other weights. Not thread-safe."""

    def __init__(self, weigh: Callable[[str, tuple[str, ...]], dict[str, WeighedWords]]) -> None:
        """`weigh` weighs the words of a text in languages."""
        self._weigh = weigh
        self._kept: dict[tuple[str, tuple[str, ...]], tuple[float, dict[str, WeighedWords]]] = {}

    def __call__(self, text: str, languages: tuple[str, ...]) -> dict[str, WeighedWords]:
        """The weights of a text's words, by language."""
        kept = self._kept.get((text, languages))
        if kept is not None and time.monotonic() - kept[0] < _QUESTION_SECONDS:
            return kept[1]
        weighed = self._weigh(text, languages)
        self.keep(text, languages, weighed)
        return weighed

    def keep(self, text: str, languages: tuple[str, ...], weighed: dict[str, WeighedWords]) -> None:
        """Remember weights that were read just now, and forget older ones."""
        now = time.monotonic()
        self._kept = {key: kept for key, kept in self._kept.items() if now - kept[0] < _QUESTION_SECONDS}
        self._kept[text, languages] = now, weighed

    def forget(self, text: str) -> None:
        """Weigh a text anew when it is asked for next, as a question that begins does."""
        self._kept = {key: kept for key, kept in self._kept.items() if key[0] != text}


def weighed_by_language(
    counts: Mapping[str, Mapping[str, int]], whole: int, others: Mapping[str, int]
) -> dict[str, WeighedWords]:
    """Weigh the words of a question in each language by `counts`, the rows with each word.

    `others` has the number of rows in each other language; the rest of the `whole` are in the store's own.
    """
    totals = {OWN: max(0, whole - sum(others.values())), **others}
    return {language: WeighedWords.of(of_words, totals[language]) for language, of_words in counts.items()}


def weighed(counts: Mapping[str, int]) -> dict[str, int]:
    """Take all words of a question; of a long one the rarest that occur.

    In a long text the words that no row contains say nothing about its subject, and would be most of its information.
    """
    if len(counts) <= MOST_WEIGHED:
        return dict(counts)
    return dict(sorted(((word, n) for word, n in counts.items() if n), key=_by_frequency)[:MOST_WEIGHED])


def _by_frequency(counted: tuple[str, int]) -> tuple[int, str]:
    word, count = counted
    return count, word


def shares(counts: Mapping[str, int], total: int) -> dict[str, float]:
    """The share of a question's information that each word carries, from the number of rows that contain it; they sum to 1.

    A word weighs log(1 + (N - n + 0.5) / (n + 0.5)) for n of N rows (BM25's inverse document frequency), whether or not
    it occurs: no row covers a question about what no row mentions. Neither repetitions nor the length of a row count:
    for answers of a few sentences both were worse than coverage alone.
    """
    most = max([total, *counts.values()])
    idf = {word: math.log(1 + (most - n + 0.5) / (n + 0.5)) for word, n in counts.items()}
    whole = sum(idf.values())
    return {word: weight / whole for word, weight in idf.items()}


def worth_searching(counts: Mapping[str, int]) -> list[str]:
    """Take words from the rarest on while they match at most `COMMON_AT` rows together; the rarest that occurs always."""
    chosen: list[str] = []
    rows = 0
    for word, count in sorted(counts.items(), key=_by_frequency):
        rows += count
        if chosen and rows > COMMON_AT:
            break
        if count:
            chosen.append(word)
    return chosen

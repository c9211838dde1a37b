"""How much of a question's information each of its words carries, and which of them are worth searching for. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

MOST_COUNTED = 4_000
"""Distinct words of a question whose rarity is asked for, the first that stand in it; it bounds what a pasted book costs."""

MOST_WEIGHED = 25
"""Words that a question is weighed by; Lucene's MoreLikeThis takes as many of a text (`DEFAULT_MAX_QUERY_TERMS`)."""

COMMON_AT = 2_000
"""Rows at which a word counts as common: it is not counted further and, where a rarer word is there, not searched for.
It bounds the work of a question, whatever the size of the store."""


def weighed(counts: Mapping[str, int]) -> dict[str, int]:
    """Take all words of a question; of a long one the rarest that some row holds.

    In a long text the words that no row holds say nothing of what it asks for, and would be most of its information.
    """
    if len(counts) <= MOST_WEIGHED:
        return dict(counts)
    return dict(sorted(((word, n) for word, n in counts.items() if n), key=_by_rarity)[:MOST_WEIGHED])


def _by_rarity(counted: tuple[str, int]) -> tuple[int, str]:
    word, count = counted
    return count, word


def shares(counts: Mapping[str, int], total: int) -> dict[str, float]:
    """The share of a question's information that each word carries, from the rows that hold it; shares sum to 1.

    A word weighs log(1 + (N - n + 0.5) / (n + 0.5)) for n of N rows (BM25's inverse document frequency), whether or not
    it occurs: a question about what no row mentions is covered by none. How often a row repeats a word does not count,
    nor does its length: for answers of a few sentences both were worse than coverage alone.
    """
    most = max([total, *counts.values()])
    rarity = {word: math.log(1 + (most - n + 0.5) / (n + 0.5)) for word, n in counts.items()}
    whole = sum(rarity.values())
    return {word: told / whole for word, told in rarity.items()}


def worth_searching(counts: Mapping[str, int]) -> list[str]:
    """Take words from the rarest on, while all the rows they name are few enough to rank; the rarest that occurs always."""
    chosen: list[str] = []
    rows = 0
    for word, count in sorted(counts.items(), key=_by_rarity):
        rows += count
        if chosen and rows > COMMON_AT:
            break
        if count:
            chosen.append(word)
    return chosen

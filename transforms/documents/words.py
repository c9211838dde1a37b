"""The words of a text as a lexical search keeps them, for stores that have no analyser of their own. Pure.

Words are stemmed by Snowball's algorithm for the language, so that `reaches` finds `reach`; English ones by Snowball's `porter`,
which is what OpenSearch's analyser does and what stores hold.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache
from typing import Any

from transforms.documents.stop_words import STOP_WORDS

LONGEST = 64
"""Characters of a word that count: an index takes no key of any length."""

_SHORTEST = 3
"""Letters of a word that is stemmed."""

_WORD = re.compile(r"\w+")
_BLANK = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf", "Mn", "Mc", "Me"})
_UNSEEN = frozenset("\u115f\u1160\u2800\u3164\uffa0\U0001d159")
"""Fillers and blanks that Unicode classes as letters and symbols."""


def words_of(text: str, language: str) -> list[str]:
    """The distinct words of a text, in their order: stemmed and without stop words; as they stand if `simple`."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    stopped = STOP_WORDS.get(language, frozenset())
    words = (word[:LONGEST] for word in _WORD.findall(plain) if word not in stopped)
    return list(dict.fromkeys(words if language == "simple" else (stem(word, language) for word in words)))


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen: spaces, controls, formats and marks without a character to stand on.

    By Unicode's general categories. What this release of Unicode does not know counts as seen.
    """
    return not any(unicodedata.category(c) not in _BLANK and c not in _UNSEEN for c in text)


@lru_cache(maxsize=65536)
def stem(word: str, language: str) -> str:
    """The stem of a word in lower case; what is shorter than three letters or has other signs stays as it is.

    In English so does what is not ASCII.
    """
    if len(word) < _SHORTEST or not word.isalpha() or (language == "english" and not word.isascii()):
        return word
    return str(_stemmer(language).stemWord(word))


@cache
def _stemmer(language: str) -> Any:
    import snowballstemmer

    return snowballstemmer.stemmer("porter" if language == "english" else language)

"""The words of a text as a lexical search keeps them, for stores that have no analyser of their own. Pure.

English words are stemmed by Porter's algorithm ("An algorithm for suffix stripping", 1980), so that `reaches` finds `reach`.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

ENGLISH_STOP_WORDS = """
i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers herself it its itself
they them their theirs themselves what which who whom this that these those am is are was were be been being have has had
having do does did doing a an the and but if or because as until while of at by for with about against between into through
during before after above below to from up down in out on off over under again further then once here there when where why how
all any both each few more most other some such no nor not only own same so than too very s t can will just don should now"""
"""Snowball's list, which PostgreSQL uses too: Lucene's own for English lacks the words that questions are made of."""

LONGEST = 64
"""Characters of a word that count: an index takes no key of any length."""

_WORD = re.compile(r"\w+")
_BLANK = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf", "Mn", "Mc", "Me"})
_UNSEEN = frozenset("\u115f\u1160\u2800\u3164\uffa0\U0001d159")
"""Fillers and blanks that Unicode counts among letters and symbols."""
_ASCII = re.compile(r"[a-z]{3,}")
_STOPPED = frozenset(ENGLISH_STOP_WORDS.split())
_SECOND = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "abli": "able", "alli": "al",
    "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate", "ator": "ate", "alism": "al",
    "iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble",
}  # fmt: skip
_THIRD = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_FOURTH = dict.fromkeys(
    ("al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate", "iti", "ous",
     "ive", "ize"), "",
)  # fmt: skip


def words_of(text: str, language: str) -> list[str]:
    """The distinct words of a text, in their order; in English without stop words, and stemmed."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    found = (word[:LONGEST] for word in _WORD.findall(plain))
    if language == "english":
        found = (stem(word) for word in found if word not in _STOPPED)
    return list(dict.fromkeys(found))


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen: spaces, controls, formats and marks without a character to stand on.

    By Unicode's general categories. What this release of Unicode does not know counts as seen.
    """
    return not any(unicodedata.category(c) not in _BLANK and c not in _UNSEEN for c in text)


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """The stem of an English word in lower case; any other word stays as it is."""
    if not _ASCII.fullmatch(word):
        return word
    word = _without_tense(_without_plural(word))
    if word.endswith("y") and _has_vowel(word[:-1]):
        word = f"{word[:-1]}i"
    for endings, least in ((_SECOND, 0), (_THIRD, 0), (_FOURTH, 1)):
        word = _replaced(word, endings, least)
    if word.endswith("e"):
        rest = word[:-1]
        if _measure(rest) > 1 or (_measure(rest) == 1 and not _is_short(rest)):
            word = rest
    return word[:-1] if word.endswith("ll") and _measure(word) > 1 else word


def _without_plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _without_tense(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) else word
    ending = next((end for end in ("ed", "ing") if word.endswith(end)), "")
    if not ending or not _has_vowel(rest := word.removesuffix(ending)):
        return word
    if rest.endswith(("at", "bl", "iz")):
        return f"{rest}e"
    if rest[-1] == rest[-2:-1] and not _shape(rest).endswith("v") and rest[-1] not in "lsz":
        return rest[:-1]
    return f"{rest}e" if _measure(rest) == 1 and _is_short(rest) else rest


def _replaced(word: str, endings: dict[str, str], least: int) -> str:
    """The word with its longest ending replaced, where the rest has more than `least` syllables."""
    found = max((end for end in endings if word.endswith(end)), key=len, default="")
    rest = word.removesuffix(found)
    if not found or _measure(rest) <= least or (found == "ion" and not rest.endswith(("s", "t"))):
        return word
    return rest + endings[found]


def _shape(word: str) -> str:
    """A `v` for each vowel and a `c` for each consonant; y is a vowel after a consonant."""
    shape = ""
    for letter in word:
        shape += "v" if letter in "aeiou" or (letter == "y" and shape.endswith("c")) else "c"
    return shape


def _measure(word: str) -> int:
    """How often a vowel is followed by a consonant."""
    return _shape(word).count("vc")


def _has_vowel(word: str) -> bool:
    return "v" in _shape(word)


def _is_short(word: str) -> bool:
    return _shape(word).endswith("cvc") and word[-1] not in "wxy"

"""A follow-up as a question of its own, from the words of the turn before. Pure; made for English.

A question that refers back (`it`, `those`, `And the H3?`) or says too little to be searched takes words of the question before
with it: all of them where it only puts something in another's place, the subject's alone where it asks something new of the
same subject. The subject are the words that the question before shares with what its answer was cited from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from transforms.documents.stop_words import STOP_WORDS
from transforms.documents.words import words_of

_WORD = re.compile(r"\w+(?:[-./]\w+)*")
_STOP = STOP_WORDS["english"]
_PRONOUNS = frozenset({
    "it", "its", "itself", "they", "them", "their", "theirs", "he", "him", "his", "she", "her", "hers", "one", "ones",
})  # fmt: skip
_DEMONSTRATIVES = frozenset(["this", "that", "these", "those"])
_OPENINGS = re.compile(r"\s*(?:and|or|but|also|so|what about|how about|what if|then)\b", re.IGNORECASE)
_CODE = re.compile(r"(?P<kind>[A-Z]+-?)\d+[A-Za-z0-9-]*")
"""A name with a number: H2, SV-32, HX-417."""
_NAME = re.compile(r"\s(?:[A-Z][\w-]*[a-z0-9]|[A-Z]+-?\d)")
"""A name behind the first word, which says what is asked about."""
_LEAST_WORDS = 3
"""Words with a meaning of their own in a question that needs no other."""
_SHORT_WORDS = 2
"""At most so many, and a question puts something in another's place."""
_ASKING = frozenset({
    "much", "many", "long", "often", "far", "fast", "big", "deep", "loud", "wrong", "large", "tell", "know", "need",
    "get", "give", "take", "mean", "work", "happen", "make", "use", "find", "say", "want", "please", "go", "come", "kind",
    "which", "there",
})  # fmt: skip
"""Words that ask, and say little of what is asked for."""
MOST_WORDS = 24
"""Words that are carried at most."""


@dataclass(frozen=True, slots=True)
class Previous:
    """The turn before."""

    topic: str
    """Its `Standalone.topic`."""
    subject: str
    """What its answer was cited from: a title, or the first sentence; empty if it had no answer."""


@dataclass(frozen=True, slots=True)
class Standalone:
    """A question of its own."""

    text: str
    """As it is searched."""
    topic: str
    """What a next follow-up takes words from: after `And the H3?` still the question that this puts something in place of."""


def standalone(question: str, previous: Previous | None) -> Standalone:
    """The question itself, or with the words of the turn before that it lacks."""
    if previous is None or not refers_back(question):
        return Standalone(question, question)
    before = " ".join(_without_replaced(previous.topic, question)[:MOST_WORDS])
    if _puts_in_place(question):
        return Standalone(f"{before} {question}", previous.topic)
    carried = [word for word in _WORD.findall(before) if word.lower() not in _STOP]
    subject = set(words_of(previous.subject, "english"))
    shared = [word for word in carried if set(words_of(word, "english")) & subject] or carried
    own = set(words_of(question, "english"))
    added = " ".join(word for word in shared if not set(words_of(word, "english")) <= own)
    text = f"{question} ({added})" if added else question
    return Standalone(text, text)


def refers_back(question: str) -> bool:
    """Whether a question cannot be understood without the one before."""
    words = [word.lower() for word in _WORD.findall(question)]
    if _OPENINGS.match(question) or _points(words) or (_PRONOUNS.intersection(words) and not _names_its_subject(words)):
        return True
    return len(_contents(question)) < _LEAST_WORDS and not _NAME.search(question)


def _names_its_subject(words: Sequence[str]) -> bool:
    """Whether words with a meaning stand before the first pronoun, which then may refer to them."""
    first = next(at for at, word in enumerate(words) if word in _PRONOUNS)
    return sum(word not in _STOP and word not in _ASKING for word in words[:first]) >= _LEAST_WORDS - 1


def _points(words: Sequence[str]) -> bool:
    """Whether a demonstrative stands where a noun would; a `that` behind a word with a meaning begins a clause."""
    for at, word in enumerate(words):
        stands_alone = at + 1 == len(words) or words[at + 1] in _STOP
        if word in _DEMONSTRATIVES and stands_alone and (at == 0 or word != "that" or words[at - 1] in _STOP):
            return True
    return False


def _puts_in_place(question: str) -> bool:
    """Whether a question names something else of which the same is asked."""
    words = {word.lower() for word in _WORD.findall(question)}
    if words & _PRONOUNS:
        return False
    opened = _OPENINGS.match(question) is not None
    return opened or (not words & _DEMONSTRATIVES and len(_contents(question)) <= _SHORT_WORDS)


def _contents(question: str) -> list[str]:
    """The words with a meaning of their own, as they were written."""
    return [word for word in _WORD.findall(question) if word.lower() not in _STOP and word.lower() not in _ASKING]


def _without_replaced(question: str, by: str) -> list[str]:
    """The words of a question without the names that a follow-up puts others of their kind for."""
    kinds = {match["kind"] for match in _CODE.finditer(by)}
    return [
        word for word in _WORD.findall(question) if not ((match := _CODE.fullmatch(word)) and match["kind"] in kinds)
    ]

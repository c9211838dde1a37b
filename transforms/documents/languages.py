"""A question over documents of several languages, and how a store tells their words apart. Pure.

A store has a language of its own, whose words it keeps as they are. Words of another language are kept with its name before
them, so that one index holds all, and each language's words are counted and weighed for themselves.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from transforms.documents.stop_words import STOP_WORDS

OWN = ""
"""The key of the store's own language, whose words have no name before them."""

type TablesOf = Mapping[str, Collection[str]]
"""The tables that have documents in a language, by each language that is not the store's own."""

_WORD = re.compile(r"\w+")


def language_key(language: str, own: str) -> str:
    """The key of a language in a store whose own has that name; a table without one has the store's."""
    return OWN if language == own else language


def marked(word: str, language: str) -> str:
    """The word as a store keeps it: no store's own word has a space within."""
    return f"{language} {word}" if language else word


def unmarked(word: str) -> tuple[str, str]:
    """The language and the word of what `marked` made."""
    language, space, rest = word.partition(" ")
    return (language, rest) if space else (OWN, word)


def mark_of(language: str) -> str:
    """What every chunk in a language has beside its words, so that a store can count them."""
    return marked("", language)


def united(one: TablesOf, other: TablesOf) -> dict[str, list[str]]:
    """The tables by language of both, in the order of their names."""
    return {name: sorted({*one.get(name, ()), *other.get(name, ())}) for name in {*one, *other}}


def languages_of(tables_of: TablesOf, tables: Sequence[str]) -> tuple[str, ...]:
    """The languages in which these tables (none: all) have documents.

    The store's own is always among them, as documents keep the language they were written with until they are written again.
    """
    return (OWN, *sorted(name for name, of in tables_of.items() if not tables or not set(tables).isdisjoint(of)))


def text_by_language(text: str, languages: Sequence[str], own: str) -> dict[str, str]:
    """The text to look for in documents of each of these languages; `own` is the name of the store's own.

    A question's own language is the one whose stop words it has most of, the first of equals. In the documents of another one
    those words are looked for no more than in its own: there they would be rare, and most of the question's information.
    """
    if len(languages) == 1:
        return dict.fromkeys(languages, text)
    words = _WORD.findall(text.casefold())
    lists = {language: STOP_WORDS.get(language or own, frozenset()) for language in languages}
    spoken = max(languages, key=lambda language: sum(word in lists[language] for word in words))
    without = _WORD.sub(lambda word: " " if word[0].casefold() in lists[spoken] else word[0], text)
    return {language: text if language == spoken else without for language in languages}

"""What is looked for in each language of a store."""

from __future__ import annotations

from typing import get_args

import pytest

from schemas.languages import Language
from sinks.documentdb.config import Language as StoreLanguage
from sinks.idf import WeighedWords
from transforms.documents.languages import OWN, language_key, languages_of, mark_of, marked, text_by_language, unmarked
from transforms.documents.stop_words import STOP_WORDS

TABLES_OF = {"german": ["public.artikel"], "french": ["public.fiches", "public.notes"]}


def test_a_question_is_parsed_in_the_languages_of_searched_tables() -> None:
    assert languages_of(TABLES_OF, ()) == (OWN, "french", "german")
    assert languages_of(TABLES_OF, ("public.artikel",)) == (OWN, "german")
    assert languages_of(TABLES_OF, ("public.articles",)) == (OWN,)
    assert languages_of({}, ()) == (OWN,)


@pytest.mark.parametrize(
    ("text", "own", "german"),
    [
        ("How is the router reset?", "How is the router reset?", "router reset?"),
        ("Wie wird der Router zurückgesetzt?", "Router zurückgesetzt?", "Wie wird der Router zurückgesetzt?"),
        ("H2-0093", "H2-0093", "H2-0093"),
        ("to be or not to be", "to be or not to be", ""),
        ("", "", ""),
    ],
)
def test_stop_words_of_the_question_s_language_are_looked_for_nowhere_else(text: str, own: str, german: str) -> None:
    parts = text_by_language(text, (OWN, "german"), "english")
    assert (parts[OWN].split(), parts["german"].split()) == (own.split(), german.split())


def test_a_store_of_one_language_parses_the_question_as_it_is() -> None:
    assert text_by_language("How is it?", (OWN,), "english") == {OWN: "How is it?"}


@pytest.mark.parametrize("language", [OWN, "german"])
def test_a_stored_word_tells_its_language(language: str) -> None:
    assert unmarked(marked("haus", language)) == (language, "haus")
    assert language_key(language, "english") == language
    assert mark_of("german") not in {marked(word, "german") for word in STOP_WORDS["german"]}


def test_shares_of_several_languages_sum_to_one_in_each() -> None:
    parts = {
        OWN: WeighedWords.of({"router": 1, "reset": 9}, 10),
        "german": WeighedWords.of({"router": 0, "reset": 1}, 3),
    }
    joined = WeighedWords.joined(parts)
    assert (
        joined.coverage(["router", "reset"]) == joined.coverage(["german router", "german reset"]) == pytest.approx(1)
    )
    assert joined.searched == ["router", "reset", "german reset"]


def test_every_language_of_a_table_is_one_of_snowball_s() -> None:
    assert set(get_args(Language.__value__)) <= set(get_args(StoreLanguage))
    assert set(STOP_WORDS) <= set(get_args(Language.__value__))

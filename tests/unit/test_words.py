"""The words of a text, where a store has no analyser of its own: stems by Porter's own examples."""

from __future__ import annotations

from typing import get_args

import pytest

from sinks.documentdb.config import Language
from transforms.documents.words import LONGEST, is_blank, stem, words_of

PORTER = """
caresses caress, ponies poni, ties ti, cats cat, feed feed, agreed agre, plastered plaster, bled bled, motoring motor,
sing sing, conflated conflat, troubled troubl, sized size, hopping hop, tanned tan, falling fall, hissing hiss, fizzed fizz,
failing fail, filing file, happy happi, sky sky, relational relat, conditional condit, rational ration, valenci valenc,
hesitanci hesit, digitizer digit, conformabli conform, radicalli radic, differentli differ, vileli vile,
analogousli analog, vietnamization vietnam, predication predic, operator oper, feudalism feudal, decisiveness decis,
hopefulness hope, callousness callous, formaliti formal, sensitiviti sensit, sensibiliti sensibl, triplicate triplic,
formative form, formalize formal, electriciti electr, electrical electr, hopeful hope, goodness good, revival reviv,
allowance allow, inference infer, airliner airlin, gyroscopic gyroscop, adjustable adjust, defensible defens,
irritant irrit, replacement replac, adjustment adjust, dependent depend, adoption adopt, homologou homolog,
communism commun, activate activ, angulariti angular, homologous homolog, effective effect, bowdlerize bowdler,
probate probat, rate rate, cease ceas, controll control, roll roll"""


@pytest.mark.parametrize("pair", PORTER.replace("\n", " ").split(","))
def test_a_word_has_the_stem_that_porter_gives_it(pair: str) -> None:
    word, wanted = pair.split()
    assert stem(word, "english") == wanted


@pytest.mark.parametrize(
    ("text", "language", "wanted"),
    [
        ("How far do the radios reach?", "english", ["far", "radio", "reach"]),
        ("How far do the radios reach?", "simple", ["how", "far", "do", "the", "radios", "reach"]),
        ("H2-0093-5518", "english", ["h2", "0093", "5518"]),
        ("Reaching, reached, REACH", "english", ["reach"]),
        ("Straße ﬁle ＡＢＣ", "simple", ["strasse", "file", "abc"]),  # noqa: RUF001 - wide letters are what is tested
        ("Москва 東京", "english", ["москва", "東京"]),
        ("Die Häuser des Hauses", "german", ["haus"]),
        ("the of", "german", ["the", "of"]),
        ("cafés _names", "english", ["cafés", "_names"]),
        ("of the and", "english", []),
        ("", "english", []),
    ],
)
def test_a_text_has_these_words(text: str, language: str, wanted: list[str]) -> None:
    assert words_of(text, language) == wanted


@pytest.mark.parametrize("language", get_args(Language))
def test_every_language_of_the_configuration_has_a_stemmer(language: str) -> None:
    assert len(words_of("running", language)) == 1


def test_a_word_is_never_longer_than_an_index_takes() -> None:
    assert words_of("x" * 5000, "simple") == ["x" * LONGEST]


@pytest.mark.parametrize(
    "text",
    ["", " \t\r\n", "\u3000\u00a0\u2009", "\u200b\ufeff\u2060", "\u202e\u200f", "\0\x1b", "\u0301\u0302", "\ufe0f\u20e3",
     "\u3164\u115f\uffa0", "\u2800", "\u00ad", "\u2028\u2029"],
    ids=ascii,
)  # fmt: skip
def test_a_text_of_which_nothing_can_be_seen_is_blank(text: str) -> None:
    assert is_blank(text)
    assert not is_blank(f"{text}.{text}")


@pytest.mark.parametrize("text", ["a", "...!!!---", "🙂", "漢", "é", "\ufffd", "\ue000"], ids=ascii)
def test_a_text_of_any_visible_character_is_not_blank(text: str) -> None:
    assert not is_blank(text)

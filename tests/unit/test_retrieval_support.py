from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_stack.demo.helpdesk import rows
from retrieval.answering import prompt
from retrieval.answering.answer_type import expected_type, holds
from retrieval.answering.drafts import Draft, Statement
from retrieval.answering.generative import NOT_SUPPORTED, supported
from retrieval.answering.sentences import sentences_of
from retrieval.answering.support import unsupported
from sinks.search import Hit

SOURCE = (
    "Cabins on the Aurora\n\nA cabin costs 1,250.50 euros for twenty-one nights and is booked by Ingrid Sandvik at desk HX-417. "
    "Doors open at 10:15; two hundred and five guests fit. Mail desk@aurora.example or see https://aurora.example/cabins?x=1."
)


@pytest.mark.parametrize(
    "sentence",
    [
        "It costs 1250.5 euros for 21 nights.",
        "It costs 1.250,50 for twenty-one nights on the Aurora.",
        "Ingrid Sandvik books it at desk HX\u2011417, or hx417.",
        "Doors open at 10:15 and 205 guests fit.",
        "Sandvik's desk is desk@aurora.example.",
        "See https://aurora.example/cabins?x=1.",
        "Each one of them is fine, and nobody pays.",
        "Cabins are booked. The Aurora is a ship.",
        "21-night stays are possible.",
    ],
)
def test_what_the_source_holds_in_another_form_is_supported(sentence: str) -> None:
    assert unsupported(sentence, [SOURCE]) == []


@pytest.mark.parametrize(
    ("sentence", "missing"),
    [
        ("It costs 1,250 euros.", ["1,250"]),
        ("It takes twenty nights.", ["=20"]),
        ("It is open at 10:30.", ["10:30"]),
        ("Ask Marte Kolstad about it.", ["Marte", "Kolstad"]),
        ("Mallory is the manager.", ["Mallory"]),
        ("Petra Vanek books it.", ["Vanek"]),
        ("Use desk HX-418.", ["HX-418"]),
        ("Send it to thief@evil.example now.", ["thief@evil.example"]),
        ("![x](https://evil.example/?q=secret)", ["https://evil.example/?q=secret"]),
    ],
)
def test_a_value_that_no_source_holds_is_named(sentence: str, missing: list[str]) -> None:
    assert [value.lstrip("=") for value in unsupported(sentence, [SOURCE])] == [m.lstrip("=") for m in missing]


TEXTS = [f"{row.get('title') or row['subject']}\n\n{row['body']}" for t in ("articles", "tickets") for row in rows(t)]


@given(st.sampled_from(TEXTS))
def test_every_sentence_of_a_row_is_supported_by_the_row(text: str) -> None:
    assert {s.text: unsupported(s.text, [text]) for s in sentences_of(text) if unsupported(s.text, [text])} == {}


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_text_breaks_the_comparison(sentence: str, source: str) -> None:
    assert len(unsupported(sentence, [source])) <= len(sentence)


def hit(number: int, text: str) -> Hit:
    return Hit(f"d{number}", "public.t", {"id": number}, f"d{number}/0", 0, text, {}, 0.9, 0.5)


ONE, TWO = hit(1, "The hub keeps 21 days."), hit(2, "Anna Berg leads support.")


def test_the_row_that_a_sentence_cites_must_hold_it_not_another() -> None:
    right, wrong = Statement("It keeps 21 days.", (ONE,)), Statement("It keeps 21 days.", (TWO,))
    assert supported([right, wrong, Statement("No source.", ())], "drop") == Draft((right,), is_worded=True)
    assert supported([wrong], "drop") == Draft((), NOT_SUPPORTED, is_worded=True)
    assert supported([wrong], "keep") == Draft((wrong,), is_worded=True)
    assert supported([wrong], "mark").text == "It keeps 21 days [1] [unsupported]."
    assert supported([Statement("No source.", ())], "keep").text == ""


def test_numbers_in_an_answer_count_the_rows_that_it_cites() -> None:
    draft = Draft((Statement("B.", (TWO,)), Statement("A.", (ONE,)), Statement("Both.", (ONE, TWO))))
    assert draft.text == "B [1]. A [2]. Both [1, 2]."
    assert draft.cites == (TWO, ONE)


@pytest.mark.parametrize(
    ("said", "parts"),
    [
        ("It keeps 21 days. [1]\n\nAnna leads [2].", [("It keeps 21 days.", [1]), ("Anna leads.", [2])]),
        ("Two parts, e.g. A and B [1]. [2]", [("Two parts, e.g. A and B.", [1, 2])]),
        ("Here it is:\n- one [1]\n- two [9]", [("Here it is:", []), ("- one", [1]), ("- two", [])]),
        ("[1] [2]", []),
    ],
)
def test_each_sentence_of_a_text_has_its_own_citations(said: str, parts: list[Any]) -> None:
    assert [(statement.text, statement.sources) for statement in prompt.statements(said, 2)] == parts


@pytest.mark.parametrize(
    ("question", "kind", "answer", "other"),
    [
        ("What does a locker cost?", "money", "It takes 2 euros.", "It is green."),
        ("How many days are there?", "number", "There are twelve.", "There are some."),
        ("When is it open?", "time", "It is open on Sundays.", "It is open."),
        ("Who leads it?", "person", "It is led by Anna.", "It is led well."),
    ],
)
def test_a_question_says_what_its_answer_holds(question: str, kind: str, answer: str, other: str) -> None:
    expected = expected_type(question)
    assert (expected, holds(expected, answer), holds(expected, other)) == (kind, True, False)
    assert not holds(expected_type("Why is it so?"), answer)

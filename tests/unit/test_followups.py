"""Follow-ups, decided by words alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_stack.demo.helpdesk import follow_ups
from retrieval.conversation.followups import MOST_WORDS, Previous, refers_back, standalone

STORED = Previous(
    "How many days of readings does an H2 hub store while it is offline?",
    "How long a Fjell Hub keeps readings while offline",
)


def carried(question: str, previous: Previous = STORED) -> str:
    return standalone(question, previous).text


def test_labelled_follow_ups_are_told_from_other_questions() -> None:
    wrong = [
        follow_up.then for follow_up in follow_ups() if refers_back(follow_up.then) is (follow_up.kind == "independent")
    ]
    assert len(list(follow_ups())) == 48
    assert wrong == ["What happens to its warranty if the hub is sold?"]  # `its` is the hub's, which comes later


def test_the_first_question_stays_as_it_is() -> None:
    assert standalone("And the H3?", None).text == "And the H3?"


def test_what_is_put_in_anothers_place_replaces_it() -> None:
    made = standalone("And the H3?", STORED)
    assert made.text == "How many days of readings does an hub store while it is offline And the H3?"
    assert standalone("And the H1?", Previous(made.topic, "")).text.endswith("offline And the H1?")
    assert "H3" not in standalone("And the H1?", Previous(made.topic, "")).text


def test_a_pronoun_takes_the_subject_along() -> None:
    assert carried("How fast does it send them?") == "How fast does it send them? (readings hub offline)"
    assert carried("How fast does it send them?", Previous(STORED.topic, "")).endswith(
        "(many days readings H2 hub store offline)"
    )


@pytest.mark.parametrize("question", ["How loud is the siren S-90?", "Where does Verdanor store the data of its customers?",
                                      "Does a hub that blinks red have a fault that can be repaired?"])  # fmt: skip
def test_a_question_of_its_own_takes_nothing_along(question: str) -> None:
    assert carried(question) == question


@given(question=st.text(max_size=200), topic=st.text(max_size=2000), subject=st.text(max_size=200))
def test_any_text_keeps_its_words_and_grows_by_a_bounded_number(question: str, topic: str, subject: str) -> None:
    made = standalone(question, Previous(topic, subject))
    assert question in made.text
    assert len(made.text.split()) <= len(question.split()) + MOST_WORDS + 1

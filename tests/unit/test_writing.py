"""What may be said of an answer while it is written, and what is taken back."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generation import AnswerStream, GeneratedAnswer, StopReason
from generation.errors import GenerationUnavailableError
from retrieval.answering import prompt
from retrieval.answering.drafts import Statement
from retrieval.answering.events import AnswerEvents, CancelledError, Cited, Event, Restarted, SentenceWritten
from retrieval.answering.writing import written
from sinks.search import Hit
from tests.waiting import eventually

END = GeneratedAnswer("", StopReason.END_TURN, 0, 0)
ANSWERS = (
    "The probe is covered for three years [1]. Claims go to Ingrid Sandvik [2]. Ask her.",
    'It takes approx. 3 days [1]. Dr. Moss e.g. says so [2]! "Really?" [1] Yes, on 3.5.2024 [1, 2].',
    "Three years. [1] [2] Claims go to Ingrid. [source 2]\n\nNothing else is known.",
    "保証は三年です。[1] 請求はこちらへ。[2] 「本当です。」と言う[1]。",
    "[1] The mast is painted [1]... every spring [2]; see https://example.org/a.b?c=d [1]. OK?",
)  # fmt: skip


def pieces_of(text: str) -> list[str]:
    """A text as a model writes it, a few characters at a time."""
    return [text[at : at + 3] for at in range(0, len(text), 3)]


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_sentence_is_finished_only_as_it_stands_in_the_whole_answer(answer: str) -> None:
    whole = prompt.statements(answer, 2)
    seen = [prompt.finished(answer[:at], 2) for at in range(len(answer) + 1)]
    assert [so_far for so_far in seen if so_far != whole[: len(so_far)]] == []
    assert len(seen[-1]) >= len(whole) - 1, "all but the last are said before the end"


@given(
    st.lists(st.sampled_from(["It is 3. ", "Moss ", "[1]", "[2", "] ", ". ", "! ", "e.g. ", "is 4 ", "”", "。", "A "]))
)
def test_what_is_finished_of_any_text_never_cites_less_later(parts: list[str]) -> None:
    text = "".join(parts)
    whole = prompt.statements(text, 2)
    for at in range(len(text)):
        for place, said in enumerate(prompt.finished(text[:at], 2)):
            later = [sentence.sources for sentence in whole if sentence.text == said.text]
            assert place < len(whole)
            assert not later or any(set(said.sources) <= set(numbers) for numbers in later)


def test_what_says_that_nothing_is_relevant_has_no_finished_sentence() -> None:
    assert prompt.finished(f"It is three years [1]. {prompt.NOTHING}. And more.", 1) == []


class Provider:
    """Streams of an answer, of which the first ones break off after so many pieces; it is silent before the piece `silent_at`."""

    def __init__(self, text: str, *breaks_after: int, silent_at: int | None = None) -> None:
        self.text, self.breaks_after, self.silent_at = text, list(breaks_after), silent_at
        self.goes_on, self.read, self.closed = threading.Event(), 0, 0

    def __call__(self) -> AnswerStream:
        return AnswerStream(self._pieces())

    def _pieces(self) -> Generator[str, None, GeneratedAnswer]:
        breaks_after = self.breaks_after.pop(0) if self.breaks_after else None
        try:
            for at, piece in enumerate(pieces_of(self.text)):
                if at == self.silent_at:
                    assert self.goes_on.wait(20)
                if at == breaks_after:
                    raise GenerationUnavailableError("gone")
                self.read += 1
                yield piece
            return END
        finally:
            self.closed += 1


def sentences(text: str) -> Sequence[Statement]:
    return [Statement(sentence.text, ()) for sentence in prompt.finished(text, 1)]


def test_an_answer_that_breaks_off_is_asked_for_once_more() -> None:
    progress: list[Sequence[Statement]] = []
    provider = Provider("One is said. Two is said. Three.", 9)
    assert written(provider, sentences, progress.append) == END
    assert eventually(lambda: provider.closed == 2)
    assert [statement.text for statement in progress[-1]] == ["One is said.", "Two is said."]
    with pytest.raises(GenerationUnavailableError):
        written(Provider("One is said. Two is said.", 3, 3), sentences, progress.append)
    never = Provider("One.", 0, 0)
    with pytest.raises(GenerationUnavailableError):
        written(never, sentences, progress.append)
    assert len(never.breaks_after) == 1, "the generator itself tries again where no answer begins"


@pytest.mark.parametrize("silent_at", [0, 8], ids=["before it begins", "in the middle"])
def test_an_answer_that_nobody_wants_is_read_no_further(silent_at: int) -> None:
    provider, cancelled = Provider("One is said. Two is said. Three." * 9, silent_at=silent_at), threading.Event()
    asked = 0

    def progress(_: Sequence[Statement]) -> None:
        nonlocal asked
        asked += 1
        if asked > silent_at:
            cancelled.set()
        AnswerEvents(cancelled=cancelled).raise_if_cancelled()

    with pytest.raises(CancelledError):
        written(provider, sentences, progress)
    assert (provider.closed, provider.read) == (0, silent_at), "the model is silent, and nobody waits for it"
    provider.goes_on.set()
    assert eventually(lambda: provider.closed)
    assert provider.read == silent_at + 1


def hit(number: int) -> Hit:
    return Hit(f"d{number}", "public.t", {"id": number}, f"d{number}/0", 0, "text", {}, 0.9, 0.5, f"v{number}")


def statements() -> Iterator[Statement]:
    yield Statement("One.", (hit(7), hit(3)))
    yield Statement("Two.", (hit(3),))


def test_rows_are_told_before_the_sentence_that_first_cites_them() -> None:
    events: list[Event] = []
    sending = AnswerEvents(events.append)
    for statement in statements():
        sending.send_sentence(statement)
    assert [(e.number, e.hit.document_id) for e in events if isinstance(e, Cited)] == [(1, "d7"), (2, "d3")]
    assert [e.citations for e in events if isinstance(e, SentenceWritten)] == [(1, 2), (2,)]
    sending.restart()
    sending.restart()
    sending.send_sentence(Statement("Two.", (hit(3),)))
    assert [type(event) for event in events[4:]] == [Restarted, Cited, SentenceWritten]
    assert events[-1].as_json() == {"text": "Two.", "citations": [1], "facts": [], "unsupported": []}

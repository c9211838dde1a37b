"""What a reader of pgvector knows without asking: for a short time, and of nothing that decides what is found."""

from __future__ import annotations

from sinks.pgvector.recent import COMMON, MOST, SECONDS, Recent
from sinks.search import Filters

FILTERS, OTHERS = Filters(("public.notes",)), Filters(("public.others",))


def test_counts_of_common_words_alone_are_kept_for_a_time() -> None:
    now = [100.0]
    recent = Recent(lambda: now[0])
    recent.note_counts({"'common'": COMMON, "'rare'": COMMON - 1, "'none'": 0})
    assert recent.counts() == {"'common'": COMMON}
    now[0] += SECONDS / 2
    recent.note_counts({"'later'": COMMON})
    now[0] += SECONDS / 2
    assert recent.counts() == {"'later'": COMMON}


def test_a_filter_that_many_pass_is_known_for_a_time() -> None:
    now = [100.0]
    recent = Recent(lambda: now[0])
    recent.note_many(FILTERS, 200)
    assert [recent.is_many(FILTERS, 200), recent.is_many(OTHERS, 200), recent.is_many(FILTERS, 40)] == [
        True,
        False,
        False,
    ]
    now[0] += SECONDS
    assert not recent.is_many(FILTERS, 200)


def test_no_more_than_some_words_are_kept() -> None:
    recent = Recent(lambda: 0.0)
    recent.note_counts({str(number): COMMON for number in range(3 * MOST)})
    assert list(recent.counts()) == [str(number) for number in range(2 * MOST, 3 * MOST)]

"""Up to when all that a source committed is written: as far as its partition that is furthest behind, and never ahead of now."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from glue_jobs.runtime import AsOf, StoresAsOf
from retrieval.ranking.search import freshness_answer
from sinks.search import Freshness

YEAR_9892_US = 250_000_000_000_000_000


def test_quiet_partition_does_not_vouch_for_a_busy_one_that_is_behind() -> None:
    known = AsOf()
    known.wrote({"t/0": 50, "t/1": 900})
    assert known.at_us == 0, "nothing says yet which partitions there are"
    known.looked({"t/0": 0, "t/1": 1000, "u/0": 0})
    assert known.at_us == 0, "of one nothing was read"
    known.looked({"t/0": 0, "t/1": 1000, "u/0": 1000})
    assert known.at_us == 50
    known.wrote({"t/0": 70})
    assert known.at_us == 70
    known.looked({"t/0": 1100, "t/1": 0, "u/0": 1100})  # meanwhile the other has more
    assert known.at_us == 1000


def test_a_commit_of_the_future_counts_as_now_and_does_not_stick() -> None:
    known = AsOf()
    before_us = time.time_ns() // 1000
    known.wrote({"t/0": YEAR_9892_US})
    known.looked({"t/0": 0})
    after_us = time.time_ns() // 1000
    assert before_us <= known.at_us <= after_us
    known.looked({"t/0": after_us})
    assert known.at_us == after_us


def test_store_that_kept_commit_of_the_future_says_nothing_of_its_freshness() -> None:
    now_us = time.time_ns() // 1000
    for kept in (YEAR_9892_US, 10**18):
        assert freshness_answer(Freshness(kept, now_us)) == {"searchable_as_of": None, "lag_seconds": None}
    assert freshness_answer(Freshness(now_us + 1_000_000, now_us))["lag_seconds"] == 0.0


def test_partitions_that_come_or_go_do_not_set_freshness_back() -> None:
    known = AsOf()
    known.looked({"s/parent": 10})
    known.looked({"s/child": 0})
    assert known.at_us == 10
    known.looked({"s/child": 30})
    assert known.at_us == 30
    known.emptied(20)
    known.emptied(40)
    assert known.at_us == 40


@given(
    st.lists(
        st.tuples(st.sampled_from(["wrote", "looked"]), st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)))
    )
)
def test_it_is_never_later_than_what_each_partition_has_come_to(steps: list[tuple[str, dict[str, int]]]) -> None:
    known, newest = AsOf(), dict.fromkeys("abc", 0)
    for step, positions in steps:
        whole = dict.fromkeys("abc", 0) | positions
        for place, at in whole.items():
            newest[place] = max(newest[place], at)
        known.looked(whole) if step == "looked" else known.wrote(positions)
        assert known.at_us <= min(newest.values())


def test_all_stores_are_as_fresh_as_the_one_furthest_behind() -> None:
    known = StoresAsOf(["quick", "slow"])
    known.stores["quick"].looked({"t/0": 90})
    assert (known.at_us, known.stores["quick"].at_us) == (0, 90)
    known.stores["slow"].looked({"t/0": 40})
    assert known.at_us == 40
    known.emptied(60)
    assert [store.at_us for store in known.stores.values()] == [90, 60]
    known.wrote({"t/0": 70})
    assert known.at_us == 70

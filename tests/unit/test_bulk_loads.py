"""When a load goes without the vector index, when it is over, and what is said of it."""

from __future__ import annotations

import time

import pytest

from sinks.bulk_loads import (
    ABANDONED_US,
    HEADROOM,
    LEAST,
    LEAST_INTO_EMPTY,
    MOST_GROWTH,
    SETTLED_SECONDS,
    Build,
    Look,
    Progress,
    expected_vectors,
    filling,
    is_abandoned,
    is_outgrown,
    is_settled,
    is_worth,
)
from sinks.versions import BulkLoad, first, from_json, to_json

MOST = 500_000
BEFORE = Progress(documents=5_000, chunks=10_000, read=70_000, left=50_000)


@pytest.mark.parametrize(
    ("present", "new", "worth"),
    [
        (0, 0, True),
        (0, LEAST_INTO_EMPTY - 1, False),
        (0, 100 * MOST, True),
        (1, 0, False),
        (1, LEAST - 1, False),
        (1, LEAST, True),
        (4 * LEAST, LEAST - 1, False),
        (100_000, 24_999, False),
        (100_000, 25_000, True),
        (MOST, MOST, False),
    ],
)
def test_a_load_goes_without_index_where_building_it_anew_is_cheaper(present: int, new: int, *, worth: bool) -> None:
    assert is_worth(present, new, MOST) is worth


@pytest.mark.parametrize(
    ("documents", "chunks", "read", "left", "new"),
    [
        (0, 0, 0, 50_000, 0),
        (0, 0, 20_000, 30_000, 0),
        (0, 300, 20_000, 30_000, 0),
        (-10, -10, 20_000, 30_000, 0),
        (5_000, 5_000, 5_000, 45_000, 45_000),
        (5_000, 5_000, 10_000, 40_000, 20_000),
        (5_000, 15_000, 5_000, 45_000, 135_000),
        (10, 10, 10, 49_990, 10 * MOST_GROWTH),
        (2_000, 2_000, 500, 10_000, 8_500),
        (8_000, 8_000, 0, 50_000, 8_000),
        (8_000, 8_000, 0, 9_000, 1_000),
        (8_000, 8_000, 0, 5_000, 0),
        (8_000, 9_000, 0, None, 9_000),
    ],
)
def test_a_backlog_brings_as_many_new_vectors_as_it_brought(
    documents: int, chunks: int, read: int, left: int | None, new: int
) -> None:
    now = Progress(BEFORE.documents + documents, BEFORE.chunks + chunks, BEFORE.read + read, left)
    assert expected_vectors(BEFORE, now) == new


def test_a_load_that_outgrew_what_was_expected_gets_its_index() -> None:
    load, most = BulkLoad("catching up", 1, expected=20_000), 100_000
    assert not is_outgrown(load, 20_000, 1_000)
    assert not is_outgrown(load, most // HEADROOM, most)
    assert is_outgrown(load, most // HEADROOM + 1, most)
    assert not is_outgrown(BulkLoad("first load", 1), 10 * most, most)
    assert not is_outgrown(BulkLoad("rebuild", 1, expected=5, renewed_us=1), 10 * most, most)


@pytest.mark.parametrize(
    ("seconds", "before", "now", "settled"),
    [
        (SETTLED_SECONDS - 0.1, 5_000, 5_000, False),
        (SETTLED_SECONDS, 5_000, 5_000, True),
        (SETTLED_SECONDS, 5_000, 5_500, True),
        (SETTLED_SECONDS, 5_000, 5_600, False),
        (10.0, 1_000_000, 1_015_000, True),
        (10.0, 1_000_000, 1_030_000, False),
    ],
)
def test_a_load_is_over_when_few_vectors_come(seconds: float, before: int, now: int, *, settled: bool) -> None:
    assert is_settled(Look(100.0, before), Look(100.0 + seconds, now)) is settled


def test_a_command_that_is_not_seen_any_more_has_left_its_load() -> None:
    job, command = BulkLoad("first load", 1), BulkLoad("rebuild", 1, renewed_us=1)
    assert not is_abandoned(job, ABANDONED_US * 10)
    assert not is_abandoned(command, ABANDONED_US)
    assert is_abandoned(command, ABANDONED_US + 2)


def test_what_is_said_of_a_load_is_a_share_and_a_time() -> None:
    begun = time.time_ns() // 1000 - 600_000_000
    assert filling(BulkLoad("first load", begun), 1234, None) == "filling, 1234 vectors so far"
    assert filling(BulkLoad("rebuild", begun, expected=1000), 250, None) == "filling, 25 %, about 30 min left"
    assert filling(BulkLoad("rebuild", begun, expected=1000), 5, None) == "filling, 0 %"
    assert filling(None, 0, Build(75, 100, 9.0)) == "building the vector index, 75 %"
    assert filling(None, 0, Build(100, 100, 9.0)) == "building the vector index, 99 %"


def test_a_load_is_kept_with_its_index_version_until_it_ends() -> None:
    versions = first("model=a", 8)
    load = BulkLoad("rebuild", 7, expected=100, renewed_us=9)
    loading = versions.loading("model=a", load)
    assert from_json(to_json(loading)).active.bulk_load == load
    assert loading.loading("model=a", None) == versions
    assert "bulk_load" not in to_json(versions)["every"][0]
    assert loading.written == (loading.active,)

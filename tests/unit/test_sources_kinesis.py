"""The pure half of the Kinesis source: which shards are read when, and what is in an aggregated record."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from datetime import UTC, datetime

import pytest
from aws_kinesis_agg.aggregator import RecordAggregator
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sources.kinesis.client import Stream, starting_position
from sources.kinesis.config import Access, KinesisSourceConfig
from sources.kinesis.offsets import (
    TRIM_HORIZON,
    Identity,
    Mark,
    Offset,
    Shard,
    at_timestamp,
    first_offset,
    with_children,
)
from sources.kinesis.records import RawRecord, user_records
from sources.positions import earlier

STREAM = Identity("arn", 1)
A, B = Shard("a"), Shard("b")
FROM_A, FROM_BOTH = Shard("c", ("a",)), Shard("d", ("a", "b"))


def listed(*shards: Shard) -> dict[str, Shard]:
    return {shard.shard_id: shard for shard in shards}


def closed(offset: Offset, *ids: str) -> Offset:
    return replace(offset, shards=offset.shards | {i: replace(offset.shards[i], closed=True, count=1) for i in ids})  # type: ignore[operator]


def test_reading_begins_with_shards_that_have_no_parent_left() -> None:
    assert set(first_offset(STREAM, listed(A, B, FROM_A), TRIM_HORIZON, 5).shards) == {"a", "b"}
    assert set(first_offset(STREAM, listed(B, FROM_A), TRIM_HORIZON, 5).shards) == {"b", "c"}


def test_a_child_waits_for_all_its_parents() -> None:
    shards = listed(A, B, FROM_BOTH)
    start = first_offset(STREAM, shards, TRIM_HORIZON, 5)
    assert "d" not in with_children(closed(start, "a"), shards).shards
    opened = with_children(closed(start, "a", "b"), shards)
    assert opened.shards["d"] == Mark(TRIM_HORIZON, seen_ms=5)
    assert with_children(opened, shards) == opened


def test_closed_shard_is_forgotten_once_stream_forgets_it_and_never_read_again() -> None:
    start = first_offset(STREAM, listed(A, FROM_A), TRIM_HORIZON, 5)
    opened = with_children(closed(start, "a"), listed(A, FROM_A))
    assert set(with_children(opened, listed(FROM_A)).shards) == {"c"}


def test_a_child_of_an_unread_parent_keeps_the_starting_time() -> None:
    start = first_offset(STREAM, listed(A, FROM_A), at_timestamp(7000), 5)
    unread = replace(start, shards={"a": replace(start.shards["a"], closed=True)})
    assert with_children(unread, listed(A, FROM_A)).shards["c"].origin_ms == 7000
    assert with_children(closed(start, "a"), listed(A, FROM_A)).shards["c"].origin == TRIM_HORIZON


def test_an_offset_comes_back_from_its_json() -> None:
    offset = closed(first_offset(STREAM, listed(A, B), at_timestamp(7), 5), "a")
    assert Offset.from_json(offset.to_json()) == offset


def test_a_place_can_be_an_origin_and_is_the_same_place() -> None:
    read = Mark(TRIM_HORIZON, sequence="4951", count=7, seen_ms=5)
    origin = read.as_origin()
    assert (origin.sequence, origin.count, origin.after, origin.seen_ms) == ("", 0, "4951", 5)
    assert origin.as_origin() == origin
    assert starting_position(origin) == starting_position(read)
    assert earlier(asdict(origin), asdict(replace(read, sequence="4952"))) == asdict(origin)
    for unread in (Mark(TRIM_HORIZON, seen_ms=5), Mark(at_timestamp(7000), seen_ms=5)):
        assert unread.as_origin() == unread
    start = Offset(STREAM, {"a": replace(origin, closed=True)})
    assert with_children(start, listed(A, FROM_A)).shards["c"] == Mark(TRIM_HORIZON, seen_ms=5)


def test_a_subscription_goes_on_behind_its_continuation_else_as_a_poll_would() -> None:
    read = Mark(at_timestamp(7000), sequence="4951", count=7)
    after = {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": "5000"}
    assert starting_position(read, continuation="5000") == after
    assert starting_position(read) == after | {"SequenceNumber": "4951"}
    moment = datetime.fromtimestamp(7, UTC)
    assert starting_position(Mark(at_timestamp(7000))) == {"Type": "AT_TIMESTAMP", "Timestamp": moment}


def test_a_consumer_is_a_name_or_an_arn_of_this_stream() -> None:
    config = {"type": "kinesis", "envelope": "dms", "stream": "changes"}
    arn = "arn:aws:kinesis:eu-central-1:123456789012:stream/changes/consumer/index:1700000000"
    for consumer in ("index", arn):
        assert KinesisSourceConfig.model_validate(config | {"consumer": consumer}).consumer == consumer
    for wrong in (
        "",
        "a/b",
        arn.replace("changes", "other"),
        "arn:aws:kinesis:eu-central-1:123456789012:stream/changes",
    ):
        with pytest.raises(ValidationError):
            KinesisSourceConfig.model_validate(config | {"consumer": wrong})


def read(data: bytes) -> list[tuple[str, bytes | None, bytes | None]]:
    raw = RawRecord("42", "outer", data, 7)
    return [(r.position, r.key, r.value) for r in user_records("s", "shard-0", [raw])]


@given(
    st.lists(
        st.tuples(st.text(min_size=1, max_size=9).filter(lambda t: t.isprintable()), st.binary(max_size=50)), min_size=1
    )
)
def test_every_user_record_of_an_aggregate_comes_out_in_order(parts: list[tuple[str, bytes]]) -> None:
    aggregator = RecordAggregator()
    for key, data in parts:
        aggregator.add_user_record(key, data)
    _, _, aggregated = aggregator.clear_and_get().get_contents()
    assert read(aggregated) == [(f"42:{n}", key.encode(), data) for n, (key, data) in enumerate(parts)]


@given(st.binary(max_size=100), st.booleans())
def test_what_only_looks_aggregated_is_passed_on_whole(message: bytes, sound: bool) -> None:  # noqa: FBT001 - drawn
    digest = hashlib.md5(message, usedforsecurity=False).digest() if sound else b"0" * 16
    data = b"\xf3\x89\x9a\xc2" + message + digest
    records = read(data)
    assert records == [("42", b"outer", data)] or (sound and all(":" in position for position, _, _ in records))


def test_a_plain_record_is_itself() -> None:
    assert read(b"{}") == [("42", b"outer", b"{}")]


def test_what_python_prints_of_a_stream_shows_no_key() -> None:
    access = Access("changes", "eu-central-1", None, "AKIDEXAMPLE", "wJalrXUtnFEMI")
    for printed in (repr(access), str(access), f"{[access]}", repr(Stream(access))):
        assert "wJalr" not in printed
        assert "AKID" not in printed

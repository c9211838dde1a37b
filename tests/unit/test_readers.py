"""What a driver knows of the readers of a source: who reads what, and how far all is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from glue_jobs.continuous.assignment import assigned
from glue_jobs.continuous.backfills import Gap
from glue_jobs.continuous.readers import Readers
from glue_jobs.continuous.store_positions import StorePositions
from sources.feeds import SourcePositions
from sources.kinesis.offsets import Mark

_NAMES = st.sets(st.integers(0, 30).map("t/{}".format))


@given(_NAMES, st.integers(1, 5), _NAMES, st.integers(1, 5))
def test_every_partition_keeps_its_one_reader_while_their_number_stays(
    before: set[str], fewer: int, after: set[str], more: int
) -> None:
    first = assigned(before, fewer, {})
    second = assigned(after, more, first)
    assert second.keys() == after
    assert all(second[name] == first[name] for name in before & after if first[name] < more)
    assert all(0 <= reader < more for reader in second.values())
    assert assigned(after, more, second) == second


def test_what_is_new_goes_to_the_reader_that_has_least() -> None:
    first = assigned(["t/0", "t/1", "t/2", "t/3"], 2, {})
    assert Counter(first.values()) == {0: 2, 1: 2}
    left = {name: reader for name, reader in first.items() if reader == 0}
    assert Counter(assigned([*left, "u/0", "u/1"], 2, left).values()) == {0: 2, 1: 2}
    assert assigned(["t/0"], 3, {}) == {"t/0": 0}
    assert assigned(["t/1"], 2, {"t/0": 0, "t/1": 1}) == {"t/1": 1}, "it is not moved because another one ended"
    assert assigned([], 3, {}) == {}


def readers(stores: dict[str, dict[str, Any]], **known: Any) -> Readers:
    return Readers(2, "epoch", SourcePositions({"topics": {}}, stores), **known)


def harvest(part: int, positions: dict[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    fields = {"part": part, "address": f"127.0.0.1:{part}", "positions": positions, "behind": [], "as_of_us": {}}
    return fields | {"closed": False, "gaps": {}, "away": {}} | more


def test_each_reader_is_instructed_of_its_own_partitions_for_every_store() -> None:
    known = readers({"a": {"t/0": 5, "t/1": 6}, "b": {"t/0": 1, "t/1": 2}}, behind={0: ("b",), 1: ("b",)})
    first, second = known.instructions(7)
    assert (first.epoch, first.batch, first.part, second.part) == ("epoch", 7, 0, 1)
    assert first.positions == {"a": {"t/0": 5}, "b": {"t/0": 1}}
    assert second.positions == {"a": {"t/1": 6}, "b": {"t/1": 2}}
    assert (first.behind, first.address, first.use_peers) == (("b",), "", ())
    assert known.instructions(7, {"b"})[1].use_peers == ("b",)


def test_what_readers_answered_is_where_reading_goes_on() -> None:
    known = readers({"a": {"t/0": 5, "t/1": 6}, "b": {"t/0": 1, "t/1": 2}})
    away = {"sink b": "it does not answer"}
    harvests = [
        harvest(0, {"a": {"t/0": 9}, "b": {"t/0": 1}}, behind=["b"], away=away, as_of_us={"a": {"t/0": 70}}),
        harvest(1, {"a": {"t/1": 8}, "b": {"t/1": 8}}, as_of_us={"a": {"t/1": 50}, "b": {"t/1": 50}}),
    ]
    assert not known.take(harvests)
    stores = {"a": {"t/0": 9, "t/1": 8}, "b": {"t/0": 1, "t/1": 8}}
    assert known.store_positions() == StorePositions(
        readers=True, identity={"topics": {}}, stores=stores, behind=("b",)
    )
    assert known.away == {}, "it may be a connection that is just being made"
    known.take(harvests)
    assert known.away == away
    assert known.as_of_us("a") == {"t/0": 70, "t/1": 50}
    assert known.as_of_us("b") == {"t/0": 0, "t/1": 50}, "nothing is known of the first yet"
    first, second = known.instructions(8)
    assert (first.positions, first.behind, first.address) == ({"a": {"t/0": 9}, "b": {"t/0": 1}}, ("b",), "127.0.0.1:0")
    assert (second.behind, second.address) == ((), "127.0.0.1:1")
    assert known.replaced == frozenset()
    moved = harvest(0, {"a": {"t/0": 7}, "b": {"t/0": 3}}, address="10.0.0.9:7")
    known.take([moved, harvests[1]])
    assert known.replaced == {"127.0.0.1:0"}, "another reader has taken its place"
    assert known.instructions(9)[0].address == "10.0.0.9:7"
    assert known.store_positions().stores == {"a": {"t/0": 9, "t/1": 8}, "b": {"t/0": 3, "t/1": 8}}, "nothing goes back"
    assert (known.store_positions().behind, known.away) == ((), {})


def test_a_source_asked_beside_the_ticks_takes_nothing_back() -> None:
    known = readers({"a": {"t/0": 5, "gone/0": 3}})
    asked = known.positions
    known.take([harvest(0, {"a": {"gone/0": 3}}), harvest(1, {"a": {"t/0": 9}})])
    stores = {"a": {"t/0": asked.stores["a"]["t/0"], "new/0": 0}}
    known.refresh(SourcePositions({"topics": {"t": "1", "new": "2"}}, stores))
    assert known.store_positions().stores == {"a": {"t/0": 9, "new/0": 0}}
    assert known.store_positions().identity == {"topics": {"t": "1", "new": "2"}}
    assert known.as_of_us("a") == {"t/0": 0, "new/0": 0}


def mark(**changes: Any) -> dict[str, Any]:
    return asdict(Mark("TRIM_HORIZON", **changes))


def test_an_ended_shard_is_read_no_more_when_every_store_has_it() -> None:
    known = readers({"a": {"s/parent": mark(sequence="5")}, "b": {"s/parent": mark(sequence="5")}})
    ended = mark(sequence="9", closed=True)
    assert known.take([harvest(0, {"a": {"s/parent": ended}, "b": {"s/parent": mark(sequence="7")}}, closed=True)])
    known.refresh(
        SourcePositions(["arn", 1], {"a": {"s/parent": ended, "s/child": mark()}, "b": known.positions.stores["b"]})
    )
    known.take([harvest(known.assignment["s/parent"], {}, as_of_us={"a": {"s/parent": 90}, "b": {"s/parent": 80}})])
    assert known.as_of_us("a") == {"s/child": 0}, "what the child holds is not known yet"
    known.take([harvest(known.assignment["s/child"], {}, as_of_us={"a": {"s/child": 95}})])
    assert known.as_of_us("a") == {"s/child": 95}, "that the other store is further back says nothing of this one"
    assert known.as_of_us("b") == {"s/parent": 80}
    positions = {part.part: part.positions for part in known.instructions(2)}
    assert positions[known.assignment["s/child"]] == {"a": {"s/child": mark()}, "b": {}}
    assert positions[known.assignment["s/parent"]] == {"a": {"s/parent": ended}, "b": {"s/parent": mark(sequence="7")}}
    known.take([harvest(0, {"b": {"s/parent": ended}}, closed=True)])
    known.refresh(SourcePositions(["arn", 1], {name: {"s/parent": ended, "s/child": mark()} for name in "ab"}))
    assert known.assignment.keys() == {"s/child"}
    assert known.as_of_us("a") == {"s/child": 95}
    assert known.as_of_us("b") == {"s/child": 0}
    assert known.store_positions().stores["b"].keys() == {"s/parent", "s/child"}, "whose children it opens, it is asked"


def test_an_ended_shard_has_no_freshness_before_its_children_are_known() -> None:
    known = readers({"a": {"s/parent": mark(), "s/other": mark()}})
    asked = known.positions  # before the shard was known to have ended
    ended, read = mark(sequence="9", closed=True), mark(sequence="3")
    known.take([harvest(0, {"a": {"s/parent": ended, "s/other": read}}, as_of_us={"a": {"s/other": 90}})])
    known.refresh(asked)
    assert known.assignment.keys() == {"s/other"}
    assert known.as_of_us("a") == {"s/parent": 0, "s/other": 90}, "its children may hold commits already"
    known.refresh(SourcePositions(["arn", 1], {"a": {"s/parent": ended, "s/other": read, "s/child": mark()}}))
    assert known.as_of_us("a") == {"s/child": 0, "s/other": 90}


def test_what_store_lacks_ends_where_others_are_when_a_shard_has_expired() -> None:
    child, place = mark(sequence="7"), mark(sequence="3")
    known = readers({"a": {"s/child": child, "s/else": mark()}, "b": {"s/parent": place, "s/else": mark()}})
    between = {"s/else": [mark(sequence="2"), mark(sequence="6")]}
    assert known.gap("b", between) == Gap({"s/else": 2}, {"s/else": 6})
    assert known.gap("b", between | {"s/parent": [place, None]}) == Gap(None, {"s/child": 7, "s/else": 0})


@given(st.lists(st.dictionaries(st.sampled_from(["t/0", "t/1"]), st.integers(0, 9)), max_size=5))
def test_positions_only_grow(position_lists: list[Mapping[str, int]]) -> None:
    known = readers({"a": {"t/0": 3, "t/1": 3}})
    highest = {"t/0": 3, "t/1": 3}
    for positions in position_lists:
        known.take([harvest(0, {"a": dict(positions)})])
        highest = {name: max(at, positions.get(name, 0)) for name, at in highest.items()}
        assert known.store_positions().stores == {"a": highest}


def test_nothing_is_fresher_than_what_is_known_of_the_partitions_there_are() -> None:
    known = readers({"a": {"t/0": 5, "t/1": 5}}, partitions_as_of_us=60)
    known.take([harvest(0, {}, as_of_us={"a": {"t/0": 70, "t/1": 50}})])
    assert known.as_of_us("a") == {"t/0": 60, "t/1": 50}

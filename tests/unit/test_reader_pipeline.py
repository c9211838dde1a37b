"""A reader's feed and store workers, over a stream and stores in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from reader import pipeline, store_worker
from reader.messages import ReaderFailedError
from schemas.errors import ConfigurationError, ModelUnavailableError, SourceGoneError, UnavailableError
from tests.reading import Reading, unavailable
from tests.waiting import eventually


@pytest.fixture
def one() -> Iterator[Reading]:
    reading = Reading("a")
    yield reading
    ended(reading)


@pytest.fixture
def two() -> Iterator[Reading]:
    reading = Reading("a", "b")
    yield reading
    ended(reading)


def ended(reading: Reading) -> None:
    """No thread and no feed outlives the pipeline."""
    for store in reading.indexer.memory.values():
        store.frozen.set()
    reading.pipeline.end()
    assert eventually(lambda: not [t for t in threading.enumerate() if t.name == "feed" or t.name[:6] == "store-"])
    assert all(feed.closed for feed in reading.stream.feeds)


def test_records_are_written_in_order_and_positions_follow_what_is_written(one: Reading) -> None:
    first = one.follow({"a": {"t/0": 0, "t/1": 0}})
    assert first.positions == {"a": {"t/0": 0, "t/1": 0}}
    for number in range(300):
        one.stream.add(number, f"t/{number % 2}")
    assert eventually(lambda: one.is_at("a", 150) and one.is_at("a", 150, "t/1"))
    assert one.written("a") == one.written("a", "t/1") == list(range(150))


def test_a_position_is_never_past_what_is_written(one: Reading) -> None:
    one.follow({"a": {"t/0": 0}})
    one.store("a").pause = 0.002
    for number in range(200):
        one.stream.add(number)
        if number % 10 == 0:
            reached = one.harvest().positions["a"]["t/0"]
            assert reached <= len(one.written("a"))
    assert eventually(lambda: one.is_at("a", 200))


def test_results_come_once_are_repeated_for_same_batch_and_dropped_by_next(one: Reading) -> None:
    one.follow({"a": {"t/0": 0}})
    one.store("a").rejects = True
    one.stream.add(1)
    assert eventually(lambda: len(one.written("a")) == 1)
    harvests = [one.harvest(), one.harvest(again=True)]
    assert [harvest.result.counts["records"] for harvest in harvests] == [1, 1]
    assert [len(harvest.result.rejected) for harvest in harvests] == [1, 1]
    one.stream.add(2)
    assert eventually(lambda: len(one.written("a")) == 2)
    assert one.harvest(again=True).result.counts["records"] == 2
    late = one.pipeline.harvest("here:1", one.batch - 1)
    assert late.result.counts == {}, "a batch that is over gets nothing"
    assert one.harvest().result.counts == {}


def test_partitions_move_in_and_out_and_earlier_fetches_do_not_count(one: Reading) -> None:
    one.stream.add(1, "t/0")
    one.follow({"a": {"t/0": 0}})
    assert eventually(lambda: one.is_at("a", 1))
    one.store("a").frozen.clear()
    one.stream.add(2, "t/0")
    assert eventually(lambda: one.stream.feeds[0].fetched == 2)
    moved = one.follow({"a": {"t/1": 0}})
    assert moved.positions == {"a": {"t/1": 0}}
    back = one.follow({"a": {"t/0": 0, "t/1": 0}})
    assert back.positions == {"a": {"t/0": 0, "t/1": 0}}
    one.store("a").frozen.set()
    one.stream.add(3, "t/1")
    assert eventually(lambda: one.is_at("a", 2) and one.is_at("a", 1, "t/1"))
    assert one.written("a") == [0, 1, 0, 1], "read again from where the instruction said"
    assert one.harvest().as_of_us["a"].keys() == {"t/0", "t/1"}


def test_a_partition_that_one_store_leaves_still_counts_for_the_other(two: Reading) -> None:
    two.follow({"a": {"t/0": 0, "t/1": 0}, "b": {"t/0": 0, "t/1": 0}})
    two.store("a").frozen.clear()
    two.store("b").frozen.clear()
    two.stream.add(1, "t/0")
    assert eventually(lambda: two.stream.feeds[0].fetched == 1)
    two.follow({"a": {"t/0": 0, "t/1": 0}, "b": {"t/1": 0}})
    two.store("a").frozen.set()
    two.store("b").frozen.set()
    assert eventually(lambda: two.is_at("a", 1))


def test_another_epoch_begins_anew_and_keeps_the_connections(one: Reading) -> None:
    one.follow({"a": {"t/0": 0}})
    one.stream.add(1)
    assert eventually(lambda: one.is_at("a", 1))
    one.pipeline.end()
    one.again()
    one.follow({"a": {"t/0": 0}})
    assert eventually(lambda: one.is_at("a", 1))
    assert one.written("a") == [0, 0]
    assert one.store("a").opened == 1


def test_store_that_is_away_falls_behind_reads_for_itself_and_comes_back(
    two: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_worker, "MOST_UNITS", 40)
    two.follow({"a": {"t/0": 0}, "b": {"t/0": 0}})
    two.store("b").error = unavailable("b")
    for number in range(20):
        two.stream.add(number)
        assert eventually(lambda number=number: len(two.written("a")) == number + 1)  # type: ignore[misc]
    away = two.harvest()
    assert away.away == {"sink b": "sink b does not answer"}
    assert (away.positions["b"], away.behind) == ({"t/0": 0}, ()), "what it lacks waits for it"
    for number in range(20, 100):
        two.stream.add(number)
        assert eventually(lambda number=number: len(two.written("a")) == number + 1)  # type: ignore[misc]
    assert two.harvest().behind == ("b",), "its queue was full"
    assert len(two.stream.feeds) == 1
    two.store("b").error = None
    assert eventually(lambda: two.is_at("b", 100) and two.harvest().behind == ())
    assert two.harvest().away == {}
    two.stream.add(100)
    assert eventually(lambda: two.is_at("a", 101) and two.is_at("b", 101))
    assert two.written("a") == list(range(101))
    assert sorted(set(two.written("b"))) == list(range(101))
    assert any(peers for _, peers in two.store("b").writes)
    assert not any(peers for _, peers in two.store("a").writes)
    assert len(two.stream.feeds) == 2
    assert two.harvest().result.counts["records"] == 0


def test_store_without_vectors_asks_peers_for_as_long_as_driver_says_so(one: Reading) -> None:
    for number, use_peers in enumerate([(), ("a",), ()]):
        one.follow({"a": {"t/0": 0}}, use_peers=use_peers)
        one.stream.add(number)
        assert eventually(lambda number=number: one.is_at("a", number + 1))  # type: ignore[misc]
    assert [peers for _, peers in one.store("a").writes] == [False, True, False]


def test_a_store_asks_its_peers_for_what_another_has_written_before_it(two: Reading) -> None:
    two.store("b").frozen.clear()
    two.follow({"a": {"t/0": 0}, "b": {"t/0": 0}})
    for number in range(4):
        two.stream.add(number)
        assert eventually(lambda number=number: two.is_at("a", number + 1))  # type: ignore[misc]
    two.store("b").frozen.set()
    assert eventually(lambda: two.is_at("b", 4))
    assert [peers for _, peers in two.store("a").writes] == [False] * 4
    assert two.store("b").writes[-1][1], "the first may have been begun when no store had it"


def test_a_store_asks_peers_for_what_was_written_before_the_reader_started(two: Reading) -> None:
    for number in range(600):
        two.stream.add(number)
    two.store("a").frozen.clear()
    two.follow({"a": {"t/0": 600}, "b": {"t/0": 0}})
    assert eventually(lambda: two.is_at("b", 600))
    two.stream.add(600)
    assert eventually(lambda: two.is_at("b", 601))
    assert two.store("b").writes == [(512, True), (88, True), (1, False)]
    two.store("a").frozen.set()
    assert eventually(lambda: two.is_at("a", 601))


def test_records_are_counted_once_however_often_a_store_reads_them(two: Reading) -> None:
    for number in range(50):
        two.stream.add(number)
    counted = two.follow({"a": {"t/0": 40}, "b": {"t/0": 0}}, behind=["b"]).result.counts["records"]

    def all_there() -> bool:
        nonlocal counted
        harvest = two.harvest()
        counted += harvest.result.counts["records"]
        return harvest.positions == {"a": {"t/0": 50}, "b": {"t/0": 50}} and not harvest.behind

    assert eventually(all_there)
    assert counted == 10
    assert two.written("a") == list(range(40, 50)), "the shared feed begins where the store does that keeps up"
    assert two.written("b")[:50] == list(range(50))


def test_a_store_alone_is_never_behind_and_reading_waits_for_it(one: Reading) -> None:
    one.follow({"a": {"t/0": 0}}, behind=["a"])
    one.store("a").frozen.clear()
    for number in range(3000):
        one.stream.add(number)
    assert eventually(lambda: one.stream.feeds[0].fetched >= 512)
    assert [one.harvest().behind for _ in range(50)] == [()] * 50
    one.store("a").frozen.set()
    assert eventually(lambda: one.is_at("a", 3000))
    assert one.written("a") == list(range(3000))
    assert max(records for records, _ in one.store("a").writes) <= store_worker.MOST_RECORDS_BEHIND


def test_a_slow_store_does_not_keep_the_other_waiting(two: Reading) -> None:
    two.follow({"a": {"t/0": 0}, "b": {"t/0": 0}})
    two.store("b").pause = 0.05
    for number in range(40):
        two.stream.add(number)
        assert eventually(lambda number=number: len(two.written("a")) == number + 1)  # type: ignore[misc]
    assert len(two.written("b")) < 40
    assert eventually(lambda: two.is_at("b", 40))
    assert two.written("b") == list(range(40))


def test_a_gap_is_reported_until_it_is_acknowledged(two: Reading) -> None:
    for number in range(10):
        two.stream.add(number)
    two.stream.first["t/0"] = 5
    gaps = [two.follow({"a": {"t/0": 8}, "b": {"t/0": 2}}, behind=["b"]).gaps]

    def leapt() -> bool:
        if not gaps[-1]:
            gaps.append(two.harvest().gaps)
        return bool(gaps[-1])

    assert eventually(leapt)
    ((begin, end),) = gaps[-1]["b"].values()
    assert begin == 2
    assert 8 <= end <= 10
    assert two.harvest(again=True).gaps == gaps[-1]
    assert two.harvest().gaps == {}
    assert eventually(lambda: two.is_at("b", 10))
    assert two.harvest().behind == ()
    assert two.written("b") == list(range(end, 10))


def test_end_of_expired_shard_that_no_other_store_reads_is_not_known(two: Reading) -> None:
    place = {"origin": "TRIM_HORIZON", "sequence": "3", "closed": False}
    two.stream.first["s/shard-1"] = 1
    harvests = [two.follow({"a": {"t/0": 0}, "b": {"t/0": 0, "s/shard-1": place}}, behind=["b"])]

    def leapt() -> bool:
        harvests.append(two.harvest())
        return bool(harvests[-1].gaps)

    assert harvests[0].gaps or eventually(leapt)
    assert harvests[-1].gaps == {"b": {"s/shard-1": (place, None)}}
    assert harvests[-1].positions["b"] == {"t/0": 0, "s/shard-1": place | {"closed": True}}
    two.stream.add(1)
    assert eventually(lambda: two.is_at("a", 1) and two.is_at("b", 1))


def test_stream_that_lost_what_all_need_is_fatal_with_its_own_error(two: Reading) -> None:
    two.stream.add(1)
    two.stream.first["t/0"] = 1
    with pytest.raises(SourceGoneError, match="t/0 has expired\nHint: see the checkpoint"):  # noqa: PT012 - by any harvest
        two.follow({"a": {"t/0": 0}, "b": {"t/0": 0}})
        eventually(lambda: two.harvest() is None)


def test_store_that_refuses_for_good_ends_epoch_and_the_next_begins_anew(one: Reading) -> None:
    one.follow({"a": {"t/0": 0}})
    one.store("a").error = ConfigurationError("no right to write", hint="grant it")
    one.stream.add(1)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="no right to write\nHint: grant it") as raised:
            eventually(lambda: one.harvest() is None)
    assert len(raised.traceback) < 8, "the frames of former raises are not kept"
    one.store("a").error = None
    one.again()
    one.follow({"a": {"t/0": 0}})
    assert eventually(lambda: one.is_at("a", 1))


def test_a_registry_that_is_away_is_waited_for_and_told(one: Reading) -> None:
    one.follow({"a": {"t/0": 0}})
    one.indexer.decode_error = UnavailableError("registry: the schema registry does not answer")
    one.stream.add(1)
    assert eventually(lambda: "registry" in one.harvest().away.get("source kafka", ""))
    assert one.written("a") == []
    one.indexer.decode_error = None
    assert eventually(lambda: one.is_at("a", 1))
    assert eventually(lambda: "source kafka" not in one.harvest().away)


def test_an_unexpected_error_is_named_without_what_it_quotes(one: Reading) -> None:
    one.indexer.decode_error = ValueError("secret row")
    one.follow({"a": {"t/0": 0}})
    one.stream.add(1)
    with pytest.raises(ReaderFailedError, match=r"^ValueError at reading.py:\d+ decode < ") as raised:
        eventually(lambda: one.harvest() is None)
    assert "secret" not in str(raised.value)


def test_what_is_away_is_named_and_waited_for(one: Reading) -> None:
    one.stream.away = "no broker answers"
    one.follow({"a": {"t/0": 0}})
    one.stream.add(1)
    assert eventually(lambda: one.harvest().away == {"source kafka": "no broker answers"})
    assert one.harvest().as_of_us == {"a": {"t/0": 0}}, "nothing is known"
    one.stream.away = None
    one.store("a").error = ModelUnavailableError("the model does not answer")
    assert eventually(lambda: one.harvest().away == {"embedding": "the model does not answer"})
    one.store("a").error = None
    assert eventually(lambda: one.is_at("a", 1) and one.harvest().away == {})


def test_a_write_without_an_end_is_reported(one: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_worker, "SLOW_SECONDS", 0.1)
    one.follow({"a": {"t/0": 0}})
    one.store("a").frozen.clear()
    one.stream.add(1)
    assert eventually(lambda: one.harvest().away == {"sink a": "sink a has not taken a write for 0 s"})
    one.steps.by_thread["store-a"] = ("embed", 0.0)
    assert one.harvest().away == {"embedding": "the embedding model has not answered for 0 s"}
    one.steps.by_thread["store-a"] = ("embed", time.monotonic())
    assert one.harvest().away == {}, "it has answered, and was asked again just now"
    one.store("a").frozen.set()
    assert eventually(lambda: one.is_at("a", 1) and one.harvest().away == {})


def test_a_fetch_without_an_end_is_reported_and_ends_the_reading(one: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "SLOW_SECONDS", 0.1)
    one.stream.hung = hung = threading.Event()
    one.follow({"a": {"t/0": 0}})
    one.stream.add(1)
    assert eventually(lambda: one.harvest().away == {"source kafka": "source kafka: a fetch has not returned for 0 s"})
    monkeypatch.setattr(pipeline, "_STUCK_SECONDS", 0.2)
    with pytest.raises(UnavailableError, match="a fetch has not returned"):
        eventually(lambda: one.harvest() is None)
    one.pipeline.end()
    one.again()
    one.follow({"a": {"t/0": 0}})
    assert eventually(lambda: one.is_at("a", 1))
    hung.set()


def test_reading_waits_when_the_driver_takes_no_results(one: Reading) -> None:
    one.store("a").vector_bytes = 1 << 20
    one.follow({"a": {"t/0": 0}})
    for number in range(60):
        one.stream.add(number)
        time.sleep(0.002)
    assert eventually(lambda: len(one.written("a")) >= 32)
    time.sleep(0.2)
    assert len(one.written("a")) < 60
    assert eventually(lambda: one.is_at("a", 60))


def test_as_of_is_newest_commit_then_time_at_which_nothing_was_left(one: Reading) -> None:
    began = time.time_ns() // 1000
    one.follow({"a": {"t/0": 0}})
    assert eventually(lambda: one.harvest().as_of_us["a"]["t/0"] >= began)
    one.store("a").frozen.clear()
    one.stream.add(1)
    added = time.time_ns() // 1000
    assert eventually(lambda: time.time_ns() // 1000 > added + 300_000)
    assert one.harvest().as_of_us["a"]["t/0"] <= added + 100_000, "what is not written was not there then"
    one.store("a").frozen.set()
    assert eventually(lambda: one.harvest().as_of_us["a"]["t/0"] > added + 300_000)
    assert one.harvest().as_of_us["a"]["t/0"] <= time.time_ns() // 1000


def test_a_store_is_added_and_another_left_out_while_reading_goes_on(two: Reading) -> None:
    two.follow({"a": {"t/0": 0}})
    for number in range(5):
        two.stream.add(number)
    assert eventually(lambda: two.is_at("a", 5))
    assert two.written("b") == []
    two.follow({"a": {"t/0": 0}, "b": {"t/0": 2}})
    assert eventually(lambda: two.is_at("b", 5) and two.harvest().behind == ())
    assert two.written("b")[:3] == [2, 3, 4]
    two.stream.add(5)
    assert eventually(lambda: two.is_at("a", 6) and two.is_at("b", 6))
    assert two.follow({"b": {"t/0": 0}}).positions.keys() == {"b"}
    two.stream.add(6)
    assert eventually(lambda: two.is_at("b", 7))
    assert 6 not in two.written("a")


def test_the_end_of_a_shard_is_told_and_counts_as_caught_up(one: Reading) -> None:
    closed = {"origin": "TRIM_HORIZON", "sequence": "7", "closed": True}
    began = time.time_ns() // 1000
    harvest = one.follow({"a": {"s/shard-1": closed}})
    assert harvest.closed
    assert harvest.as_of_us["a"]["s/shard-1"] >= began

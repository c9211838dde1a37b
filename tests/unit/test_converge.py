"""Histories of every recording end as the model says, and a fault in the fold is found, made small, and printed as a test."""

from __future__ import annotations

import ast
import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from converge import report
from converge.compare import Failure
from converge.histories import Delivery, History, Kill, Recorded
from converge.in_memory import InMemory, OpenInMemory
from converge.journal import Journal
from converge.recording import recording
from converge.run import Settings, planned, run
from converge.shrink import shrunk
from schemas.changes import Changes
from schemas.errors import ConfigurationError
from schemas.records import Record
from tests.converging import RECORDINGS, recorded
from tests.recorded import CONTEXT
from transforms import fold
from transforms.context import DecodeContext, TableContext
from transforms.envelopes.decode import decode


@pytest.mark.covers(
    ("postgresql", "mariadb"), "debezium", ("snapshot", "delete", "key change", "truncate", "drift"), "recorded"
)
@pytest.mark.covers("postgresql", "debezium", "large value", "recorded")
@pytest.mark.covers("postgresql", "dms", ("snapshot", "delete", "key change", "large value"), "recorded")
@pytest.mark.covers("sqlserver", "debezium", ("snapshot", "delete", "key change"), "made")
@pytest.mark.covers("oracle", "debezium", ("snapshot", "truncate", "large value"), "made")
@pytest.mark.parametrize("name", RECORDINGS)
def test_histories_of_every_recording_fold_to_the_model(name: str) -> None:
    recordings = {name: recorded(name)}
    outcome = run(OpenInMemory(recordings), recordings, planned(recordings, Settings(60, seed=1)))
    assert (outcome.failing, outcome.smallest) == (0, ())


@pytest.mark.parametrize(
    ("name", "live"),
    [("pg15_schemas", {'{"id":4}', '{"id":5}', '{"id":100}', '{"id":103}'}),
     ("mariadb1011_plain", {'{"id":3}', '{"id":4}', '{"id":5}', '{"id":100}'})],
)  # fmt: skip
def test_the_model_ends_in_the_rows_that_the_server_had(name: str, live: set[str]) -> None:
    events = recorded(name).recording.events
    (table,) = (table for table in recorded(name).recording.families if table.endswith(".items"))
    whole = History(name, 0, 0, tuple(Delivery(n, 0) for n, event in events.items() if event.table == table))
    assert recorded(name).end(whole).rows.keys() == live


def test_key_spaces_share_no_key_and_keep_the_order() -> None:
    spaces = recorded("pg15_schemas").spaces
    seen: set[tuple[str, str]] = set()
    for space in (1, 2, 3000):
        sequences: dict[int, str] = {}
        keys: set[tuple[str, str]] = set()
        for number, event in spaces.recording.events.items():
            answer = decode(spaces.record(event, space), CONTEXT)
            assert isinstance(answer, Changes)
            sequences[number] = answer.changes[0].sequence
            keys |= {(c.table, c.key) for c in answer.changes if c.key}
        assert not keys & seen
        seen |= keys
        order = sorted(spaces.recording.events.values(), key=lambda event: event.place)
        by_table = itertools.groupby(sorted(order, key=lambda event: event.table), key=lambda event: event.table)
        for _, events in by_table:
            in_order = [sequences[event.number] for event in events]
            assert in_order == sorted(in_order)


# Faults.


def without_tombstones(restore: Callable[..., fold.RowState]) -> Callable[..., fold.RowState]:
    """A store that forgets a deleted row."""

    def restored(document: Mapping[str, Any]) -> fold.RowState:
        state = restore(document)
        return state if state.exists else dataclasses.replace(state, deleted="")

    return restored


def without_values(_: Callable[..., fold.RowState]) -> Callable[..., fold.RowState]:
    """A key change that takes nothing along."""
    return lambda *_: fold.EMPTY


def last_wins(join: Callable[..., fold.RowState]) -> Callable[..., fold.RowState]:
    """A guard that accepts what is equal or older: whichever value comes last stays."""

    def joined(one: fold.RowState, other: fold.RowState) -> fold.RowState:
        return dataclasses.replace(join(one, other), columns={**one.columns, **other.columns})

    return joined


def without_truncation(_: Callable[..., fold.RowState]) -> Callable[..., fold.RowState]:
    return lambda state, _: state


@pytest.mark.parametrize(
    ("function", "fault", "most"),
    [("restore", without_tombstones, 3), ("carried", without_values, 3), ("join", last_wins, 2),
     ("truncated_at", without_truncation, 2)],
    ids=["tombstone forgotten", "key move lost", "older accepted", "truncate ignored"],
)  # fmt: skip
def test_a_fault_in_the_fold_is_found_and_shrunk(
    function: str, fault: Any, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings = {name: recorded(name) for name in ("pg15_plain", "mariadb1011_plain")}
    histories = planned(recordings, Settings(300, seed=2))
    monkeypatch.setattr(fold, function, fault(getattr(fold, function)))
    outcome = run(OpenInMemory(recordings), recordings, histories)
    assert outcome.failing
    sizes = [len(failure.history.deliveries) for failure in outcome.smallest]
    assert min(sizes) <= most, sizes
    printed = report.as_test(outcome.smallest[0], "pipeline.yaml", ["events.jsonl"])
    (call,) = (node for node in ast.walk(ast.parse(printed)) if isinstance(node, ast.Call))
    history_json = ast.literal_eval(next(keyword.value for keyword in call.keywords if keyword.arg == "history"))
    again = [report.of_json(history_json)]
    assert run(OpenInMemory(recordings), recordings, again).failing
    monkeypatch.undo()
    assert not run(OpenInMemory(recordings), recordings, again).failing


def test_shrinking_stops_at_what_is_needed() -> None:
    """A fault of a store that needs one event twice, a second reader for one of them, and a death."""
    begin = History("r", 1, 7, (*(Delivery(n, n % 4) for n in range(12)), Delivery(3, 3, 1)), (Kill(1, 2), Kill(2, 0)))

    def fails(history: History) -> bool:
        twice = [delivery for delivery in history.deliveries if delivery.event == 3]
        return len(twice) > 1 and any(delivery.reader for delivery in twice) and Kill(2, 0) in history.kills

    smallest = shrunk(
        Failure(begin, "store", ()),
        lambda parts: [Failure(h, "store", ()) for h in parts if fails(h)],
        itertools.count(2),
    ).history
    assert [delivery.event for delivery in smallest.deliveries] == [3, 3]
    assert smallest.kills == (Kill(2, 0),)


def test_what_fails_in_company_alone_is_printed_as_that() -> None:
    """A fault that needs two histories at once: none of them is made smaller, as alone it ends as it should."""
    (first, _) = histories = [History("r", space, space, (Delivery(0, 0), Delivery(1, 0))) for space in (1, 2)]

    def run_of(parts: Sequence[History]) -> list[Failure]:
        return [Failure(h, "store", ("the row of event 1 is missing",)) for h in parts if len(parts) > 1]

    smallest = shrunk(run_of(histories)[0], run_of, itertools.count(3))
    assert (smallest.history, smallest.alone) == (first, False)
    printed = report.as_test(smallest, "pipeline.yaml", ["events.jsonl"])
    assert "does not fail alone" in printed
    ast.parse(printed)


def test_the_same_seed_makes_the_same_histories() -> None:
    recordings = {"pg15_plain": recorded("pg15_plain")}
    first, again = (planned(recordings, Settings(200, seed=5)) for _ in range(2))
    assert first == again
    assert first != planned(recordings, Settings(200, seed=6))
    deliveries = [delivery for history in first for delivery in history.deliveries]
    assert {d.reader for d in deliveries} == {0, 1}
    assert any(d.late for d in deliveries)
    assert any(h.kills for h in planned(recordings, Settings(2_000, seed=5)))


# What a user's events may be.


def context(*keys: str) -> DecodeContext:
    return DecodeContext("debezium", {"public.t": TableContext("public.t", keys)})


def event(row: dict[str, Any], lsn: int = 1) -> Record:
    source = {"connector": "postgresql", "schema": "public", "table": "t", "lsn": lsn, "ts_us": 1}
    return Record("t", "0", str(lsn), None, json.dumps({"op": "c", "after": row, "source": source}).encode())


def test_events_of_no_configured_table_are_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="none changes a row of a configured table") as raised:
        recording("kafka", DecodeContext("debezium", {}), [event({"id": 1})])
    assert raised.value.condition == "NO_EVENTS"


def test_a_table_whose_key_cannot_be_moved_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"table public.t: no column of its key \(ok\)"):
        Recorded.of(recording("kafka", context("ok"), [event({"ok": True})]))


@pytest.mark.parametrize("key", [7, "7", "a name", "6f9619ff-8b86-d011-b42d-00c04fc964ff", 2**31 - 1_000_000])
def test_keys_of_any_usual_form_are_moved(key: Any) -> None:
    moved = Recorded.of(recording("kafka", context("id"), [event({"id": key, "n": 1.10})]))
    decoded = [decode(moved.spaces.record(moved.recording.events[0], space), context("id")) for space in (1, 2)]
    values = [dict(changes.changes[0].columns) for changes in decoded if isinstance(changes, Changes)]
    assert len({json.dumps(value["id"]) for value in values} | {json.dumps(key)}) == 3
    assert {str(value["n"]) for value in values} == {"1.1"}
    assert all(isinstance(value["id"], type(key)) for value in values)


@pytest.mark.parametrize("text", ["", "[]", '{"source": "s", "deliveries": [[1]], "kills": []}'])
def test_what_is_no_history_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no history"):
        report.of_json(text)


def test_a_death_in_a_batch_is_followed_by_its_repetition() -> None:
    recordings = {"pg15_plain": recorded("pg15_plain")}
    (history,) = planned(recordings, Settings(1, seed=3))
    dying = dataclasses.replace(history, kills=tuple(Kill(number, 0) for number in range(4)))
    lane = InMemory(recordings)
    lane.deliver([dying], Journal(), lambda _: None)
    assert lane.failures([dying]) == []

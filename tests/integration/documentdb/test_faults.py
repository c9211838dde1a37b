"""What only DocumentDB can do to its sink: busy, refusing, half a bulk, an answer that comes too late, a server that ends."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from itertools import batched
from typing import Any

import pytest

from local_stack.faults.tcp import FaultProxy
from local_stack.standins.documentdb.server import DocumentDB
from schemas.documents import DocumentWrite
from schemas.errors import DocumentRefusedError, UnavailableError
from sinks.documentdb.config import DocumentDBConfig
from sinks.documentdb.schema import Names
from sinks.documentdb.writer import DocumentDBSink
from tests.documentdb_store import opened, through, went_well
from tests.feeding import Fed, one_row, vector_of, write_of
from tests.history import TABLE, ModelTable, key_of, random_history
from tests.waiting import eventually
from transforms.documents.planning import document_id

# The store at work


@pytest.mark.parametrize(
    ("commands", "fault"),
    [
        (("insert", "update"), {"errorCode": 10107}),
        (("insert",), {"closeConnection": True}),
        (("find",), {"errorCode": 91}),
    ],
    ids=["no primary", "connection lost", "shutting down"],
)
def test_a_store_that_fails_over_is_waited_for(
    sink: DocumentDBSink, failing: Callable[..., None], commands: tuple[str, ...], fault: dict[str, Any]
) -> None:
    fed = Fed(sink)
    failing(*commands, **fault)
    with pytest.raises(UnavailableError):
        fed(one_row().changes)
    failing()
    fed(one_row().changes)
    assert sink.summary().documents == 1


def test_of_half_bulk_written_half_stays_and_the_other_half_is_told(
    sink: DocumentDBSink, failing: Callable[..., None]
) -> None:
    sink.keep_vectors({"h": vector_of("h")})
    for code, kind in ((16500, UnavailableError), (2, DocumentRefusedError)):
        failing("insert", times=1, failItem=1, errorCode=code)
        with pytest.raises(kind):
            sink.write([write_of(1), write_of(2), write_of(3)])
    assert sink.summary().documents == 2
    assert sink.write([write_of(1), write_of(2), write_of(3)]) == {write_of(n).document_id for n in (1, 3)}
    assert sink.summary().documents == 3


def test_of_a_bulk_with_refused_updates_each_is_told_apart(sink: DocumentDBSink) -> None:
    table, fed = ModelTable(), Fed(sink)
    for number in range(4):
        table.insert(number, f"x {number}")
        table.update_body(number, f"y {number}")
    for change in table.changes:
        fed([change])
    stored = sink.read([document_id(TABLE, key_of(n)) for n in range(4)])
    writes = [
        DocumentWrite(name, TABLE, key_of(0), d.revision - (place % 2), d.state, d.spec_digest, live=False)
        for place, (name, d) in enumerate(stored.items())
    ]
    assert sink.write(writes) == {write.document_id for write in writes[1::2]}


def test_an_answer_that_comes_too_late_was_a_write_all_the_same(
    documentdb: DocumentDB, sink: DocumentDBSink, config: DocumentDBConfig, new_proxy: Callable[[int], FaultProxy]
) -> None:
    proxy = new_proxy(documentdb.port)
    table = one_row()
    with closing(opened(through(config, proxy.port, 1.5))) as late:
        fed = Fed(late)
        fed(table.changes)
        table.update_body(1, "y")
        late.keep_vectors({"h": vector_of("h")})
        proxy.delay(1.0)
        with pytest.raises(UnavailableError, match="does not answer"):
            late.write([write_of(2)])
        proxy.heal()
        assert eventually(lambda: sink.summary().documents == 2)
        assert late.write([write_of(2)]) == {write_of(2).document_id}
        fed(table.changes)
    assert sink.summary().documents == 2


@pytest.mark.parametrize("fault", ["refuse", "stall", "drop"])
def test_a_store_that_is_away_is_unavailable_and_comes_back(
    documentdb: DocumentDB,
    sink: DocumentDBSink,
    config: DocumentDBConfig,
    new_proxy: Callable[[int], FaultProxy],
    fault: str,
) -> None:
    proxy = new_proxy(documentdb.port)
    table = one_row()
    with closing(opened(through(config, proxy.port, 1.0))) as away:
        fed = Fed(away)
        fed(table.changes)
        table.insert(2, "y")
        getattr(proxy, fault)()
        with pytest.raises(UnavailableError, match="does not answer"):
            fed(table.changes)
        proxy.heal()
        assert eventually(lambda: went_well(lambda: fed(table.changes)))
    assert sink.summary().documents == 2
    assert len(fed.embedder.texts) == 2


def test_a_server_that_is_killed_and_comes_back_has_lost_nothing(documentdb: DocumentDB, sink: DocumentDBSink) -> None:
    table, fed = one_row(), Fed(sink)
    fed(table.changes)
    documentdb.kill()
    try:
        table.insert(2, "y")
        hasty = opened(sink._config.model_copy(update={"timeout_seconds": 0.5}))
        with closing(hasty), pytest.raises(UnavailableError, match="does not answer"):
            Fed(hasty)(table.changes)
    finally:
        documentdb.start()
    assert eventually(lambda: went_well(lambda: fed(table.changes)))
    assert sink.summary().documents == 2
    assert len(fed.embedder.texts) == 2


# What is removed


def test_truncated_rows_and_unused_vectors_are_swept(sink: DocumentDBSink, monkeypatch: pytest.MonkeyPatch) -> None:
    table, fed = one_row(), Fed(sink)
    table.truncate()
    table.insert(2, "y")
    fed(table.changes[:1])
    fed(table.changes[1:])
    monkeypatch.setattr("sinks.documentdb.writer.UNUSED_MS", -60_000)
    kept = [name for name, _ in sink.vectors_since(0)]
    sink.sweep()
    assert len(kept) == 2
    assert len(sink.missing_vectors(kept)) == 1
    names = [document_id(TABLE, key_of(number)) for number in (1, 2)]
    assert sink.read(names).keys() == {names[1]}


def test_a_vector_that_is_taken_up_again_is_not_swept(
    documentdb: DocumentDB, config: DocumentDBConfig, sink: DocumentDBSink
) -> None:
    sink.keep_vectors({"h": vector_of("h"), "unnamed": vector_of("u")})
    with documentdb.client() as client:
        client[config.database][Names("kb").vectors].update_many({}, {"$set": {"kept_at": 0}})
    with closing(opened(config)) as other:
        other.keep_vectors({"gone": vector_of("g")})
        assert other._usable({"h", "never"}) == {"h"}
        sink.sweep()
        assert other.write([write_of(1)]) == set()
        assert sink.missing_vectors(["h", "unnamed", "gone"]) == {"unnamed"}
        assert other.write([write_of(2, "unnamed")]) == {write_of(2).document_id}


# All of it


def test_shuffled_histories_under_faults_leave_the_rows_of_the_source(
    sink: DocumentDBSink, failing: Callable[..., None]
) -> None:
    r = random.Random(7)
    table = random_history(7, 60)
    changes = table.changes + r.choices(table.changes, k=20)
    r.shuffle(changes)
    fed = Fed(sink)
    for batch in batched(changes, 5):
        faults: list[dict[str, Any]] = [
            {"errorCode": 10107},
            {"closeConnection": True},
            {"failItem": 0, "errorCode": 16500},
        ]
        fault = r.choice(faults)
        failing("insert", "update", times=r.randint(0, 2), **fault)
        assert eventually(lambda: went_well(lambda: fed(batch)))  # noqa: B023 - called at once
    failing()
    assert sink.summary().documents == len(table.rows)
    live = [document_id(TABLE, key_of(number)) for number in table.rows]
    assert sink.read(live).keys() == set(live)

"""What every vector store must survive: writers that are killed, servers that fail, readers that look on."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext, suppress
from itertools import batched

import pytest

from local_stack.faults.tcp import FaultProxy
from schemas.errors import UnavailableError
from sinks import open_index
from sinks.protocol import Sink
from sinks.search import Question
from tests.documentdb_store import went_well
from tests.feeding import Fed, vector_of
from tests.history import ModelTable, key_of
from tests.killed_writer import LARGEST_BATCH, long_history, writing
from tests.stores import Store, drift, network_faults, refusing_every
from tests.waiting import eventually

KILLS = 20
HISTORY = 4000
SEED = 5


def test_writers_killed_at_random_points_leave_what_one_that_lives_leaves(store: Store, sink: Sink) -> None:
    changes, at, r = long_history(SEED, HISTORY).changes, 0, random.Random(SEED)
    for _ in range(KILLS):
        with writing(sink, SEED, HISTORY, at) as (process, connection):
            for _ in range(1 + r.randint(0, 4)):
                at = connection.recv()
            process.join(r.uniform(0, 0.04))
            process.kill()
            process.join()
            assert process.exitcode == -signal.SIGKILL
            with suppress(EOFError):
                while True:
                    at = connection.recv()
    half_written = at + LARGEST_BATCH
    assert KILLS < half_written < len(changes)
    Fed(sink)(changes[at:half_written])
    assert drift(store, changes[:half_written]) == []


NETWORK = ("stopped", "slow", "hanging", "answer lost")
OPENSEARCH = ("429", "503", "full disk", "full disk of vectors", "read-only")
FAULTS = [
    *((name, fault) for name in ("pgvector", "opensearch_by_script", "in_documentdb") for fault in NETWORK),
    *(("pgvector", f) for f in ("read-only", "out of time", "full disk", "out of memory", "sessions ended")),
    *((name, fault) for name in ("opensearch_by_script", "opensearch_by_seq_no") for fault in OPENSEARCH),
    *(("in_documentdb", f) for f in ("no primary", "full disk", "throttled", "half a bulk", "connections lost")),
]  # fmt: skip
HARMLESS = ("slow", "answer lost", "sessions ended", "half a bulk")
"""What a write may get through all the same."""


@pytest.mark.usefixtures("sink")
@pytest.mark.parametrize(("store", "fault"), FAULTS, indirect=["store"])
def test_store_that_fails_is_waited_for_and_equal_to_lake_in_end(
    store: Store,
    fault: str,
    new_proxy: Callable[[int], FaultProxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sinks.opensearch.client.PAUSES", (0.01, 0.01))
    changes = long_history(SEED + 1, 70).changes
    proxy = new_proxy(store.server.port)
    shaky = store.open(config=store.at(proxy.port))
    faults = {**network_faults(proxy), **store.faults}
    assert fault in faults or fault.isdigit()
    failed = 0
    for turn, batch in enumerate(batched(changes, 12)):
        writer = shaky
        with refusing_every(store, int(fault)) if fault.isdigit() else nullcontext() as refusing:
            if refusing:
                writer = store.open(config=refusing)
            with faults.get(fault, nullcontext)() if turn % 3 else nullcontext():
                for _ in range(2):
                    try:
                        Fed(writer)(batch)
                    except UnavailableError:
                        failed += 1
        assert eventually(lambda: went_well(lambda: Fed(shaky)(batch)))  # noqa: B023 - called at once
    assert fault in HARMLESS or failed > 4
    assert store.open().summary().documents > 0
    assert drift(store, changes) == []


@pytest.mark.parametrize("store", ["pgvector", "opensearch_by_script", "in_documentdb"], indirect=True)
def test_a_server_killed_and_started_again_ends_equal_to_the_lake(store: Store, sink: Sink) -> None:
    changes, fed = long_history(SEED + 2, 60).changes, Fed(sink)
    done = threading.Event()

    def kill() -> None:
        done.wait(0.15)
        store.server.kill()
        done.wait(0.3)
        store.server.start()

    with ThreadPoolExecutor(1) as pool:
        killer = pool.submit(kill)
        for batch in batched(changes, 3):
            assert eventually(lambda: went_well(lambda: fed(batch)), 120)  # noqa: B023 - called at once
        killer.result()
    assert drift(store, changes) == []


RECHUNKINGS = {"pgvector": 200, "in_documentdb": 100, "opensearch_by_script": 40, "opensearch_by_seq_no": 40}
"""As many as take a few seconds of two quiet cores; `make test-long` does a thousand everywhere."""


def test_a_reader_never_sees_two_versions_nor_a_deleted_document(
    store: Store, sink: Sink, request: pytest.FixtureRequest
) -> None:
    times = request.config.getoption("--rechunkings") or RECHUNKINGS[request.node.callspec.params["store"]]
    table, fed = ModelTable(), Fed(sink)
    table.insert(1, "a long body in version 0")
    fed(table.changes)
    gone: set[str] = set()
    seen: set[str] = set()
    polls = 0
    done = threading.Event()

    def read() -> None:
        nonlocal polls
        with closing(open_index(store.config, "model=test")) as index:
            while not done.is_set():
                before = set(gone)
                shown = store.contents()
                texts = {text for _, text, _ in shown[key_of(1)][1]}
                versions = {text.split()[-1] for text in texts}
                assert len(versions) == 1, versions
                assert len(texts) == 1 + int(versions.pop()) % 7
                assert before.isdisjoint(shown)
                seen.update(texts)
                before = set(gone)
                asked = Question(f"long body version {polls}", vector_of("long body"))
                hits = index.lexical(asked, 50) if polls % 2 else index.dense(asked, 50)
                assert before.isdisjoint(key_of(int(hit.key["id"])) for hit in hits)
                assert 1 in {hit.key["id"] for hit in hits}, (polls, hits)
                polls += 1

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        for version in range(1, times + 1):
            table.update_body(
                1, "\n\n".join(f"part {n} of a long body in version {version}" for n in range(1 + version % 7))
            )
            fed(table.changes[-1:])
            if version % 5 == 0:
                number = 100 + version
                table.insert(number, "a long body that goes")
                fed(table.changes[-1:])
                table.delete(number)
                fed(table.changes[-1:])
                gone.add(key_of(number))
            if reader.done():
                break
        done.set()
        reader.result(timeout=120)
    assert polls > 10
    assert len(seen) > 10
    assert drift(store, table.changes) == []

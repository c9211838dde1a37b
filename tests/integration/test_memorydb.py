"""A memory in MemoryDB as AWS runs it: TLS, users with rights, and a replica that becomes the primary under load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from threading import Event
from typing import Any

import pytest

from local_stack.faults.tcp import FaultProxy
from memory import Memory, opened
from memory.memorydb.client import COMMANDS
from memory.memorydb.config import MemoryDBConfig
from memory.memorydb.store import MemoryDBStore
from schemas.errors import ConfigurationError, PipelineError, UnavailableError
from tests.secure_memorydb import PASSWORD, PREFIX, TURN_SECONDS, SecureMemoryDB
from tests.waiting import WAIT_SECONDS, eventually

RIGHTS = COMMANDS.format(PREFIX)


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureMemoryDB]:
    started = SecureMemoryDB(tmp_path_factory.mktemp("memorydb")).start()
    yield started
    started.stop()


def config(shard: SecureMemoryDB, **changes: Any) -> MemoryDBConfig:
    return MemoryDBConfig.model_validate(shard.section(**changes))


def refusal(action: Callable[[], object]) -> PipelineError:
    with pytest.raises(PipelineError) as refused:
        action()
    assert PASSWORD not in str(refused.value)
    return refused.value


def take_turn(memory: Memory, session: str, question: str, turn_id: str | None = None) -> int:
    with memory.conversations.turn("ada", session, question, turn_id=turn_id) as turn:
        if turn.reply is None:
            memory.conversations.answer(turn, {"answer": question}, {})
    return turn.number


def test_a_user_with_the_listed_rights_alone_keeps_everything(shard: SecureMemoryDB) -> None:
    with closing(MemoryDBStore(config(shard))) as store:
        store.check()
    profile = {"plan": {"type": "text"}}
    with opened(config(shard, profile=profile)) as memory:
        assert [take_turn(memory, "s", question, question) for question in ("one", "two", "two")] == [1, 2, 2]
        memory.profiles.put("ada", {"plan": "Grower"}, 0)
        memory.profiles.put("ada", {"plan": "Estate"}, 1)
        memory.feedback.put("ada", "s", 1, "up")
        assert [exchange.number for exchange in memory.conversations.exchanges("ada", "s")] == [1, 2]
        assert memory.conversations.forget("ada")["removed"] == {
            "profile": 1,
            "sessions": 1,
            "messages": 4,
            "feedback": 1,
        }


def test_check_lists_every_right_where_one_is_missing(shard: SecureMemoryDB) -> None:
    words = RIGHTS.split()
    try:
        for missing in words:
            granted = " ".join(word for word in words if word != missing)
            shard.grant(granted if missing != words[0] else f"~other:* {granted}")
            with closing(MemoryDBStore(config(shard))) as store:
                error = refusal(store.check)
            assert (missing, error.condition, RIGHTS in error.hint) == (missing, "MISSING_RIGHTS", True)
    finally:
        shard.grant(RIGHTS)


def test_a_wrong_password_or_user_is_said_without_it(shard: SecureMemoryDB) -> None:
    port = shard.proxies[0].port
    for user in ("app:wrong", "nobody:wrong"):
        with closing(MemoryDBStore(config(shard, url=f"rediss://{user}@localhost:{port}"))) as store:
            error = refusal(store.check)
        assert (error.condition, "wrong" in str(error)) == ("MISSING_RIGHTS", False)
    with closing(MemoryDBStore(config(shard, url=f"rediss://localhost:{port}"))) as store:
        assert refusal(store.check).condition == "MISSING_RIGHTS"


def test_a_server_that_is_not_verified_gets_no_password(shard: SecureMemoryDB) -> None:
    for changes in ({"tls_ca_file": None}, {"tls_ca_file": shard.authority("elsewhere")}):
        with closing(MemoryDBStore(config(shard, **changes))) as store:
            error = refusal(store.check)
        assert (type(error), error.condition) == (ConfigurationError, "MEMORY_TLS")
    with FaultProxy(shard.nodes[0].port, shard.certificate("elsewhere")) as proxy:
        url = shard.section()["url"].replace(str(shard.proxies[0].port), str(proxy.port))
        with closing(MemoryDBStore(config(shard, url=url, tls_ca_file=shard.authority("elsewhere")))) as store:
            assert refusal(store.check).condition == "MEMORY_TLS"
    plain = shard.section()["url"].replace("rediss", "redis")
    with closing(MemoryDBStore(config(shard, url=plain, timeout_seconds=0.5))) as store:
        assert refusal(store.check).condition == "MEMORY_UNAVAILABLE"


class Load:
    """Four callers who take turns until they are told to stop, and ask again by the same turn id where they must."""

    def __init__(self, shard: SecureMemoryDB) -> None:
        self.numbers: dict[str, list[int]] = {f"s{n}": [] for n in range(4)}
        self.refused: Counter[str] = Counter()
        self._ended = Event()
        self._pool = ThreadPoolExecutor(4)
        self._running = [
            self._pool.submit(self._take_turns, config(shard, busy_timeout=5), name) for name in self.numbers
        ]

    def _take_turns(self, section: MemoryDBConfig, session: str) -> None:
        with opened(section) as memory:
            number = 0
            while not self._ended.is_set():
                try:
                    self.numbers[session].append(take_turn(memory, session, f"question {number}", f"id {number}"))
                    number += 1
                except UnavailableError as error:
                    self.refused[error.condition] += 1
                    self._ended.wait(0.02)

    def goes_on(self, turns: int = 20) -> None:
        """Wait until every caller has been answered again, also one whose turn was held when the store went away."""
        wanted = {name: len(numbers) + turns for name, numbers in self.numbers.items()}
        seconds = TURN_SECONDS + WAIT_SECONDS
        eventually(lambda: all(len(self.numbers[name]) >= number for name, number in wanted.items()), seconds)

    def end(self) -> None:
        """Stop; raises what a caller was not prepared for."""
        self._ended.set()
        for caller in self._running:
            caller.result()
        self._pool.shutdown()


def compare(load: Load, shard: SecureMemoryDB) -> None:
    """Every turn that was acknowledged is there, once, with its answer."""
    with opened(config(shard)) as memory:
        for session, numbers in load.numbers.items():
            kept = memory.conversations.exchanges("ada", session, 100_000)
            assert numbers == list(range(1, len(numbers) + 1))
            assert [(exchange.number, exchange.reply) for exchange in kept[: len(numbers)]] == [
                (number, {"answer": f"question {number - 1}"}) for number in numbers
            ]
        memory.conversations.forget("ada")


def is_primary(node: Any) -> bool:
    return str(node.info("replication")["role"]) == "master"


def test_no_acknowledged_turn_is_lost_when_a_replica_becomes_primary(shard: SecureMemoryDB) -> None:
    load = Load(shard)
    try:
        for promoted in (1, 0, 1):
            load.goes_on()
            with shard.nodes[promoted].admin() as replica:
                replica.execute_command("CLUSTER", "FAILOVER")
                eventually(partial(is_primary, replica))
        load.goes_on()
    finally:
        load.end()
    compare(load, shard)
    assert set(load.refused) <= {"MEMORY_UNAVAILABLE", "MEMORY_BUSY", "SESSION_BUSY"}


def test_callers_go_on_at_the_replica_when_the_primary_is_killed(shard: SecureMemoryDB) -> None:
    shard.settle(primary=0)
    load = Load(shard)
    try:
        load.goes_on()
        shard.kill_in_step(0)
        eventually(lambda: load.refused)
        shard.take_over(1)
        load.goes_on()
        shard.nodes[0].start()
        shard.settle(primary=0)
        load.goes_on()
    finally:
        load.end()
    compare(load, shard)
    assert set(load.refused) <= {"MEMORY_UNAVAILABLE", "MEMORY_BUSY", "SESSION_BUSY"}

"""A table that is changed at a steady rate, each change acknowledged by a stream, and what a store must show of it."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any, Protocol

import psycopg
from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.changes import Change
from schemas.records import Record
from tests.e2e.rows import differences, vector_fits
from tests.history import TABLE, ModelTable, as_record
from transforms.values import exact_json

LIVE_ROWS = 600
"""From here on as many rows are deleted as inserted."""
STORE = "kb"

type Acknowledged = Callable[[Change, int], None]
"""Is called with a change and the time (microseconds since the epoch) when its stream had it."""


class Stream(Protocol):
    """Where changes go."""

    def send(self, changes: Sequence[Change], acknowledged: Acknowledged) -> None:
        """Send changes and return; whether or not the stream answers now, it gets them all."""

    def close(self) -> None:
        """Return when all that was sent is acknowledged."""


class Changing(Protocol):
    """What changes tables until it is ended, and knows what a store must show of them."""

    def start(self) -> None:
        """Begin to change."""

    def halt(self) -> None:
        """Stop."""

    def end(self) -> None:
        """Stop, raise what went wrong, and wait until everything is in its stream."""

    def acknowledged_until(self, us: int) -> list[tuple[str, str]]:
        """Keys and sequences of changes that were acknowledged up to then and not returned before."""

    def wrong(self, dsn: str) -> list[str]:
        """Where the store differs from the tables, which may not change meanwhile."""


class Topic:
    """A topic of Kafka; each key has a partition, another one when there are more of them."""

    def __init__(self, bootstrap_servers: str, name: str, partitions: int) -> None:
        """Open a producer."""
        self.name, self.partitions = name, partitions
        settings = {"bootstrap.servers": bootstrap_servers, "enable.idempotence": True, "log_level": 0}
        self._producer = Producer(settings | {"linger.ms": 1, "topic.metadata.refresh.interval.ms": 1000})

    def send(self, changes: Sequence[Change], acknowledged: Acknowledged) -> None:
        """Send changes; what their delivery reports say is handed on here or at a later call."""
        for change in changes:
            record = as_record(change, commit_us=now_us())
            delivered, number = (
                partial(self._delivered, change, acknowledged),
                sum(change.key.encode()) % self.partitions,
            )
            while not self._produced(record, number, delivered):
                self._producer.poll(0.1)
        self._producer.poll(0)

    def close(self) -> None:
        """Wait for the last report."""
        assert self._producer.flush(120) == 0, "the broker has not acknowledged everything"

    def _produced(self, record: Record, number: int, delivered: Callable[..., None]) -> bool:
        """Whether a record was taken; a producer looks once a second how many partitions there are."""
        try:
            self._producer.produce(
                self.name, record.value, partition=number, headers=list(record.headers), on_delivery=delivered
            )
        except KafkaException as error:
            if error.args[0].code() != KafkaError._UNKNOWN_PARTITION:  # the client's own name of it
                raise
            return False
        return True

    @staticmethod
    def _delivered(change: Change, acknowledged: Acknowledged, error: object, _: object) -> None:
        assert error is None, f"the broker refused a record: {error}"
        acknowledged(change, now_us())


class Shards:
    """A stream of Kinesis; each key has a shard, another one when they were split or merged."""

    def __init__(self, client: Any, name: str) -> None:
        """Take a client of boto3."""
        self._client, self._name = client, name

    def send(self, changes: Sequence[Change], acknowledged: Acknowledged) -> None:
        """Send changes, and hand on that they were taken."""
        if not changes:
            return
        records = [{"Data": as_record(c, commit_us=now_us()).value, "PartitionKey": c.key or TABLE} for c in changes]
        answer = self._client.put_records(StreamName=self._name, Records=records)
        assert answer["FailedRecordCount"] == 0
        for change in changes:
            acknowledged(change, now_us())

    def close(self) -> None:
        """There is nothing to wait for."""


class Load(threading.Thread):
    """Changes a table `rate` times a second until it is ended: most keep the text, and a fifth has another one."""

    def __init__(self, stream: Stream, rate: float, seed: str, *, key_moves: bool = True) -> None:
        """Begin with an empty table; another seed makes other texts. `moves` changes keys too, which only headers tell."""
        super().__init__(name="load", daemon=True)
        self.table = ModelTable()
        self.error: BaseException | None = None
        self._stream, self._rate, self._random = stream, rate, random.Random(seed)
        self._next, self._acknowledged = 0, deque[tuple[int, str, str]]()
        self.newest: dict[str, str] = {}
        """The source's position of the last change of each key that was sent."""
        self._mix = {"a": 60, "body": 18, "insert": 12, "delete": 8} | ({"move": 2} if key_moves else {})
        self._halt, self.idle = threading.Event(), threading.Event()

    def run(self) -> None:
        """Change until halted; a pause is made up for."""
        began, done = time.monotonic(), 0
        try:
            while not self._halt.wait(0.02):
                if self.idle.is_set():
                    began, done = time.monotonic(), 0
                due = min(200, round((time.monotonic() - began) * self._rate) - done)
                for _ in range(due):
                    self._change()
                done += due
                self._send()
        except BaseException as error:  # noqa: BLE001 - `end` raises it
            self.error = error

    def change(self, times: int) -> None:
        """Change so often at once, when it has ended."""
        for _ in range(times):
            self._change()
        self._send()
        self._stream.close()

    def halt(self) -> None:
        """Stop."""
        self._halt.set()
        self.join(60)

    def end(self) -> None:
        """Stop, and wait until the stream has everything."""
        self.halt()
        if self.error is not None:
            raise self.error
        self._stream.close()

    def acknowledged_until(self, us: int) -> list[tuple[str, str]]:
        """Keys and sequences of changes that were acknowledged up to then and not returned before."""
        acknowledged = []
        while self._acknowledged and self._acknowledged[0][0] <= us:
            acknowledged.append(self._acknowledged.popleft()[1:])
        return acknowledged

    def wrong(self, dsn: str) -> list[str]:
        """Where rows, texts, vectors or sequences of the store differ from the table, which may not change meanwhile."""
        wanted = {key: ({"a": row["a"], "at": self.newest[key]}, [row["body"]]) for key, row in self._rows().items()}
        stored: dict[str, tuple[dict[str, Any], list[Any]]] = {}
        query = (
            f"SELECT key::text, metadata->>'a', sequence, chunk_text, embedding::text FROM {STORE} ORDER BY chunk_index"
        )
        with psycopg.connect(dsn) as connection:
            for key, a, sequence, text, vector in connection.execute(query.encode()):
                name = exact_json.dumps(exact_json.loads(key))
                stored.setdefault(name, ({"a": a, "at": position_in(sequence)}, []))[1].append(text)
                if not vector_fits(text, vector):
                    return [f"store: {name} has another text's vector"]
        return differences(wanted, stored, "store")

    def _rows(self) -> dict[str, dict[str, object]]:
        return {exact_json.dumps({"id": number}): row for number, row in self.table.rows.items()}

    def _send(self) -> None:
        changes, self.table.changes = self.table.changes, []
        for change in changes:
            self.newest[change.key] = position_in(change.sequence)
        self._stream.send(changes, self._keep)

    def _keep(self, change: Change, us: int) -> None:
        self._acknowledged.append((us, change.key, position_in(change.sequence)))

    def _change(self) -> None:
        r, table, live = self._random, self.table, list(self.table.rows)
        kind = r.choices(list(self._mix), list(self._mix.values()))[0]
        if len(live) < 50 or (kind == "insert" and len(live) < LIVE_ROWS):
            self._next += 1
            table.insert(self._next, f"row {self._next} {r.random()}")
        elif kind == "a":
            table.update_a(r.choice(live), f"a{r.random()}")
        elif kind == "body":
            table.update_body(r.choice(live), " ".join([f"text {r.random()}"] * r.randint(1, 12)))
        elif kind == "delete" or len(live) >= LIVE_ROWS:
            table.delete(r.choice(live))
        else:
            self._next += 1
            table.move(r.choice(live), self._next)


class Freshness(threading.Thread):
    """Looks five times a second how fresh the store says it is, and whether it then shows what it must."""

    def __init__(self, load: Changing, dsn: str) -> None:
        super().__init__(name="freshness", daemon=True)
        self._load, self._dsn, self._halt = load, dsn, threading.Event()
        self.key_moves: list[tuple[float, int]] = []
        """When (monotonic) it was first seen to be so fresh (microseconds since the epoch)."""
        self.wrong: list[str] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        """Look until halted."""
        due: dict[str, str] = {}
        try:
            while not self._halt.wait(0.2):
                with suppress(psycopg.OperationalError):  # a store that is away shows nothing
                    self._watch(due)
        except BaseException as error:  # noqa: BLE001 - `end` raises it
            self.error = error

    def end(self) -> None:
        """Stop; raise what was wrong."""
        self._halt.set()
        self.join(30)
        if self.error is not None:
            raise self.error
        assert not self.wrong, self.wrong[:5]

    def _watch(self, due: dict[str, str]) -> None:
        with closing(psycopg.connect(self._dsn, autocommit=True)) as connection:
            while not self._halt.wait(0.2):
                as_of_us = _as_of_us(connection)
                if as_of_us is not None and (not self.key_moves or as_of_us != self.key_moves[-1][1]):
                    self.key_moves.append((time.monotonic(), as_of_us))
                    self._look(connection, due, as_of_us)

    def _look(self, connection: psycopg.Connection[Any], due: dict[str, str], as_of_us: int) -> None:
        for key, sequence in self._load.acknowledged_until(as_of_us):
            due[key] = max(due.get(key, ""), sequence)
        heads = f"SELECT key::text, sequence FROM {STORE}_g1_documents"
        shown = {exact_json.dumps(exact_json.loads(k)): position_in(s) for k, s in connection.execute(heads.encode())}
        late = [key for key, sequence in due.items() if shown.get(key, "") < sequence]
        self.wrong += [f"fresh as of {as_of_us}, and {key} shows less" for key in late]
        due.clear()


def _as_of_us(connection: psycopg.Connection[Any]) -> int | None:
    try:
        noted = connection.execute(f"SELECT value::bigint FROM {STORE}_meta WHERE name = 'indexed_as_of'".encode())
    except psycopg.errors.UndefinedTable:
        return None
    row = noted.fetchone()
    return row[0] if row else None


def position_in(sequence: str) -> str:
    """The part of a sequence that the source gives; the rest is the stream's, which a test does not choose."""
    return sequence[:52]


def now_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000

"""MariaDB and MySQL through Debezium and Kafka: lake, tables and store equal them, whoever dies and whatever is read anew."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from local_stack.models.service import ModelService
from local_stack.servers.binlog import BinlogDatabase
from local_stack.servers.connect import Connect
from local_stack.servers.kafka import Broker
from local_stack.stack import Stack
from tests.e2e.binlog import KEEP_ALIVE_MS, BinlogSource, document
from tests.e2e.debezium import Captured
from tests.e2e.load import STORE, Load
from tests.e2e.pipeline import Pipeline, running
from tests.e2e.transactions import OTHERS, Transactions, await_shown, in_binlog_server
from tests.e2e.under_load import configured
from tests.waiting import eventually
from transforms.values import exact_json

RATE = 40.0
"""Changes a second."""
ROWS = 400
"""Rows of each snapshot that the log never had."""
CHUNK = 16
"""Rows that an incremental snapshot reads at once: so few that changes come between."""


@pytest.fixture
def capture(
    binlog_server: BinlogDatabase, kafka: Broker, connect: Connect
) -> Iterator[Callable[[Sequence[str]], Captured]]:
    """Make the topics of tables; their connector, once put, is deleted in the end."""
    made: list[Captured] = []

    def create(tables: Sequence[str]) -> Captured:
        made.append(Captured(binlog_server.dsn(""), tables, kafka, connect))
        return made[-1]

    yield create
    for captured in made:
        connect.delete_connector(captured.prefix)


@pytest.mark.covers(("mariadb", "mysql"), "debezium", ("type", "snapshot", "delete", "key change"), "live")
@pytest.mark.covers(("mariadb", "mysql"), "debezium", ("truncate", "large value"), "live")
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_stores_equal_the_source_over_the_files_of_its_log(  # noqa: PLR0917 - fixtures
    binlog_server: BinlogDatabase,
    binlog_database: str,
    capture: Callable[[Sequence[str]], Captured],
    vectors_dsn: str,
    instant_model: ModelService,
    local_stack: Stack,
    tmp_path: Path,
) -> None:
    source = BinlogSource(binlog_server, binlog_database)
    captured = capture(source.tables)
    source.before_the_capture()
    model_url = instant_model.endpoint["endpoint_url"]
    configuration = document(captured.source, source.database, vectors_dsn, model_url, tmp_path)
    pipeline = Pipeline(tmp_path / "p", configuration, mark=str(local_stack.directory))
    with running(pipeline):
        driver = pipeline.start()
        captured.put()
        # A table that is emptied under its snapshot makes the connector fail (1412).
        pipeline.await_equal(source.source)
        source.edges()
        pipeline.await_equal(source.source)
        assert driver.stop() == 0
    assert pipeline.delta("rejects", ["stage"]) == []


@dataclass
class Changed:
    """A table that is changed all the while, its connector, and a pipeline that reads it."""

    table: Transactions
    captured: Captured
    pipeline: Pipeline
    load: Load
    dsn: str

    def await_shown(self) -> None:
        await_shown([self.table], self.dsn)

    def insert_unlogged(self, numbers: Sequence[int]) -> None:
        """Rows that no log has: a snapshot alone can bring them."""
        rows = ", ".join(f"({number}, 'unlogged', 'row {number} that no log has')" for number in numbers)
        self.table.execute("SET SESSION sql_log_bin = 0", f"INSERT INTO t VALUES {rows}")

    def snapshot(self, kind: str) -> None:
        """Ask the running connector for another snapshot of the table."""
        data = json.dumps({"type": kind, "data-collections": [self.table.table]})
        self.table.execute(f"INSERT INTO signals VALUES (uuid(), 'execute-snapshot', '{data}')")

    def edit(self, numbers: Sequence[int]) -> None:
        """An edit, a delete, a key change by turns, each a transaction."""
        for number in numbers:
            statement = (
                "UPDATE t SET a = 'edited', body = concat(body, ' and was edited') WHERE id = {}",
                "DELETE FROM t WHERE id = {}",
                f"UPDATE t SET id = id + {ROWS} WHERE id = {{}}",
            )[number % 3]  # fmt: skip
            self.table.execute(statement.format(number))

    def await_all_shown(self) -> None:
        """Wait until the store has every row that was made beside the load."""
        made = f"SELECT count(*) FROM t WHERE id >= {OTHERS}"
        stored = f"SELECT count(*) FROM {STORE} WHERE (key->>'id')::bigint >= {OTHERS}"

        def is_shown() -> bool:
            with psycopg.connect(self.dsn) as connection:
                return connection.execute(stored.encode()).fetchall() == [tuple(r) for r in self.table.execute(made)]

        eventually(is_shown, 120, self.pipeline.drivers[-1].process)

    def snapshot_records(self, numbers: Sequence[int]) -> list[tuple[str, int, bool]]:
        """Partition and offset of each record of the table, and whether a snapshot brought one of these rows by it."""
        rows = self.pipeline.delta("changes", ["_op", "partition", "position", "key"])
        wanted = {exact_json.dumps({"id": number}) for number in numbers}
        return sorted(
            (row["partition"], int(row["position"]), row["_op"] == "r" and _key(row["key"]) in wanted) for row in rows
        )

    def finish(self) -> None:
        """End the load: everything equals the source, which is what was made of it, and stands in the lake once."""
        self.load.end()
        (config,) = self.pipeline.config.tables
        assert self.table.wrong(self.load, config) == []
        self.pipeline.await_equal(self.table.rows)
        assert self.pipeline.drivers[-1].stop() == 0
        assert set(self.pipeline.landed().values()) == {1}
        assert self.pipeline.delta("rejects", ["stage"]) == []


@pytest.fixture
def changed(  # noqa: PLR0917 - fixtures
    binlog_server: BinlogDatabase,
    binlog_database: str,
    capture: Callable[[Sequence[str]], Captured],
    vectors_dsn: str,
    instant_model: ModelService,
    local_stack: Stack,
    tmp_path: Path,
) -> Iterator[Changed]:
    table = in_binlog_server(binlog_server, binlog_database)
    captured = capture([table.table])
    configuration = configured(tmp_path, captured.source, [{"table": table.table}], instant_model, vectors_dsn)
    pipeline = Pipeline(tmp_path / "p", configuration, mark=str(local_stack.directory))
    load = Load(table, RATE, binlog_server.part)
    with running(pipeline):
        pipeline.start()
        captured.put(
            signal_table=f"{binlog_database}.signals",
            incremental_snapshot_chunk_size=str(CHUNK),
            connect_keep_alive_interval_ms=KEEP_ALIVE_MS,
        )
        load.start()
        try:
            yield Changed(table, captured, pipeline, load, vectors_dsn)
        finally:
            load.halt()


@pytest.mark.covers(("mariadb", "mysql"), "debezium", ("delete", "key change"), "live")
@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_connect_worker_or_database_loses_no_change(
    changed: Changed, binlog_server: BinlogDatabase, connect: Connect
) -> None:
    changed.await_shown()
    for server in (connect, binlog_server):
        server.kill()
        server.start()
        changed.await_shown()
    binlog_server.kill()
    connect.kill()
    connect.start()  # a task that starts while its database is away fails for good
    eventually(lambda: "FAILED" in connect.states(changed.captured.prefix), 60)
    binlog_server.start()
    connect.restart_failed(changed.captured.prefix)
    changed.await_shown()
    changed.finish()


@pytest.mark.covers(("mariadb", "mysql"), "debezium", ("snapshot", "delete", "key change"), "live")
@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_incremental_and_blocking_snapshots_lose_nothing_while_changes_go_on(changed: Changed) -> None:
    changed.await_shown()
    sets = [range(OTHERS + 10 * ROWS * n, OTHERS + 10 * ROWS * n + ROWS) for n in range(2)]
    for kind, numbers in zip(("incremental", "blocking"), sets, strict=True):
        changed.insert_unlogged(numbers)
        changed.snapshot(kind)
        changed.edit(numbers[::4])
        changed.await_all_shown()
        changed.await_shown()
    changed.finish()
    for numbers in sets:
        brought = [record for record in changed.snapshot_records(numbers) if record[2]]
        assert len(brought) > ROWS / 2, "a snapshot brought them"
    assert is_mixed(changed.snapshot_records(sets[0])), "changes came between the chunks of the incremental snapshot"


def is_mixed(records: Sequence[tuple[str, int, bool]]) -> bool:
    """Whether in a partition something else stands between two rows of a snapshot."""
    for partition in {partition for partition, _, _ in records}:
        kinds = [brought for name, _, brought in records if name == partition]
        if True in kinds and False in kinds[kinds.index(True) : len(kinds) - kinds[::-1].index(True)]:
            return True
    return False


def _key(text: bytes | str | None) -> str:
    return exact_json.dumps(exact_json.loads(text or "null"))

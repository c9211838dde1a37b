"""What a binary log has: one order over its files, with GTIDs and without; rows that a foreign key deletes, or not; JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_stack.servers.binlog import BinlogDatabase
from local_stack.servers.connect import Connect
from local_stack.servers.kafka import Broker
from local_stack.servers.mysql import MySQL
from tests.captured import captured_by, configured, wrong_with_capture
from tests.history import contents, folded
from tests.servers import new_binlog_database

GTID_MODES = ("OFF", "OFF_PERMISSIVE", "ON_PERMISSIVE", "ON")
"""MySQL goes from one to the next."""
LOGGED = """
UPDATE items SET note = 'after' WHERE id = 1
UPDATE items SET id = 20 WHERE id = 2
FLUSH LOGS
DELETE FROM items WHERE id = 3
SET SESSION binlog_transaction_compression = ON
UPDATE items SET note = concat(note, ' and compressed') WHERE id > 3
TRUNCATE items
INSERT INTO items VALUES (1, 'again'), (20, 'again'), (21, 'new')
UPDATE items SET id = 22 WHERE id = 21
FLUSH LOGS
DELETE FROM items WHERE id = 20
INSERT INTO items VALUES (99, 'last')
""".strip().splitlines()
"""Over three files of the log, and in part in compressed transactions."""
ROWS = 9


@pytest.fixture(params=["ON", "OFF"])
def gtid_mode(mysql: MySQL, request: pytest.FixtureRequest) -> Iterator[str]:
    """The server numbers transactions, or does not."""
    modes = [f"SET GLOBAL gtid_mode = {mode}" for mode in GTID_MODES]
    if request.param == "OFF":
        mysql.execute(*modes[-2::-1])
    yield request.param
    if request.param == "OFF":
        mysql.execute(*modes[1:])


@pytest.fixture
def mysql_database(mysql: MySQL) -> Iterator[str]:
    yield from new_binlog_database(mysql)


@pytest.mark.mysql
@pytest.mark.covers("mysql", "debezium", ("snapshot", "delete", "key change", "truncate"), "live")
def test_the_log_of_mysql_has_one_order_with_gtids_and_without(
    mysql: MySQL, mysql_database: str, gtid_mode: str, kafka: Broker, connect: Connect, tmp_path: Path
) -> None:
    db = mysql_database
    rows = ", ".join(f"({number}, 'row {number}')" for number in range(1, ROWS + 1))
    mysql.execute("CREATE TABLE items (id int PRIMARY KEY, note text)", f"INSERT INTO items VALUES {rows}", database=db)
    path = configured(tmp_path, mysql.dsn(db), connect, kafka, [{"table": f"{db}.items", "keys": ["id"]}], "mysql")
    with captured_by(path, connect, kafka) as topics:
        topics.changes(ROWS)
        mysql.execute(*LOGGED, database=db)
        changes = topics.changes_until(b'"after":{"id":99,')
    there = mysql.execute("SELECT id, note FROM items", database=db)
    wanted = {f'{{"id":{number}}}': {"id": number, "note": note} for number, note in there}
    for seed in range(10):
        again = [*changes, *changes[:5]]
        random.Random(seed).shuffle(again)
        assert contents(folded(again)) == wanted, seed
    sources = [json.loads(record.value or b"")["payload"]["source"] for record in topics.records]
    assert {bool(source["gtid"]) for source in sources[ROWS:]} == {gtid_mode == "ON"}
    assert len({source["file"] for source in sources}) == 3


@pytest.mark.covers(("mariadb", "mysql"), "debezium", "delete", "live")
def test_rows_that_a_foreign_key_deletes_come_where_check_names_none(
    binlog_server: BinlogDatabase, binlog_database: str, kafka: Broker, connect: Connect, tmp_path: Path
) -> None:
    db, kind = binlog_database, binlog_server.part
    binlog_server.execute(
        "CREATE TABLE parents (id int PRIMARY KEY)",
        "CREATE TABLE parts (id int PRIMARY KEY, p int, FOREIGN KEY of_parent (p) REFERENCES parents (id) ON DELETE CASCADE)",
        "INSERT INTO parents VALUES (1), (2)",
        "INSERT INTO parts VALUES (1, 1), (2, 2)",
        database=db,
    )
    path = configured(tmp_path, binlog_server.dsn(db), connect, kafka, [{"table": f"{db}.parts", "keys": ["id"]}], kind)
    with captured_by(path, connect, kafka) as topics:
        topics.changes(2)
        binlog_server.execute("DELETE FROM parents WHERE id = 1", "INSERT INTO parts VALUES (3, 2)", database=db)
        come = [change.key for change in topics.changes_until(b'"after":{"id":3,') if change.op == "d"]
        named = wrong_with_capture(path)
    if kind == "mysql":  # from 9.6 on
        assert (come, named) == (['{"id":1}'], [])
    else:
        assert come == []
        assert ["foreign keys" in sentence for sentence in named] == [True]


MEMBERS = (
    "'n', 1.10, 'd', CAST('2024-02-29' AS DATE), 'at', CAST('2024-02-29 12:34:56.789' AS DATETIME(3)), "
    "'t', CAST('-12:34:56.5' AS TIME(1)), 'u', CAST(18446744073709551615 AS UNSIGNED), 'f', 1e300, 's', 'é ☃', 'l', "
    "JSON_ARRAY(NULL, TRUE)"
)


@pytest.mark.mysql
@pytest.mark.covers("mysql", "debezium", "type", "live")
def test_json_of_mysql_loses_times_before_zero_in_the_stream_alone(
    mysql: MySQL, mysql_database: str, kafka: Broker, connect: Connect, tmp_path: Path
) -> None:
    db = mysql_database
    create, insert = (
        "CREATE TABLE t (id int PRIMARY KEY, j json)",
        f"INSERT INTO t VALUES ({{}}, JSON_OBJECT({MEMBERS}))",
    )
    mysql.execute(create, insert.format(1), database=db)
    path = configured(tmp_path, mysql.dsn(db), connect, kafka, [{"table": f"{db}.t", "keys": ["id"]}], "mysql")
    with captured_by(path, connect, kafka) as topics:
        topics.changes(1)
        mysql.execute(insert.format(2), database=db)
        texts = [change.columns["j"] for change in topics.changes(2)]
    snapshot, stream = map(json.loads, texts)
    # Debezium 3.5's own text of JSON in the log.
    assert (snapshot.pop("t"), stream.pop("t")) == ("-12:34:56.500000", "13:0-35:0-57.00000-5")
    assert (snapshot.pop("at"), stream.pop("at")) == ("2024-02-29 12:34:56.789000", "2024-02-29 12:34:56.789")
    assert snapshot == stream
    assert ['"n": 1.10' in text for text in texts] == [True, False], "with spaces, and without"

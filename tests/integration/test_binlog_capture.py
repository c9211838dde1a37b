"""MariaDB and MySQL captured as `ragstream capture` renders it, with the rights that it prints; what `check` says of a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from glue_jobs.cli.main import cli
from glue_jobs.config.pipeline import load_config
from glue_jobs.operations import capture_checks
from local_stack.ports import HOST
from local_stack.servers.binlog import BinlogDatabase
from local_stack.servers.connect import Connect, request_json
from local_stack.servers.kafka import Broker
from schemas.errors import ConfigurationError, UnavailableError
from schemas.tables import TableConfig
from sources.capture.binlog_server import run
from sources.capture.connect_worker import connector_settings
from sources.capture.debezium import DebeziumCaptureConfig
from sources.capture.rendering import Details, render
from sources.capture.source import require_tables
from tests.captured import Topics
from tests.servers import unique
from tests.unit.test_capture_converters import VALID_NAMES
from tests.unit.test_capture_engines import DSN, TABLES


@pytest.fixture
def reader(binlog_server: BinlogDatabase) -> Iterator[str]:
    """The name of a user without any right; its password is the same."""
    name = unique("reader")
    binlog_server.execute(f"CREATE USER {name}@'%' IDENTIFIED BY '{name}'")
    yield name
    binlog_server.execute(f"DROP USER {name}")


def address(server: BinlogDatabase, user: str, password: str = "", port: int = 0) -> str:
    return f"{server.part}://{user}:{password or user}@{HOST}:{port or server.port}/"


def pipeline(folder: Path, dsn: str, broker: Broker, tables: dict[str, list[str]], **capture: Any) -> Path:
    database = dsn.partition(":")[0]
    name = unique(database)
    document = {
        "name": name,
        "source": {
            "type": "kafka", "envelope": "debezium", "topics": [f"{name}.{table}" for table in tables], **broker.endpoint,
        },
        "capture": {"type": "debezium", "database": database, "dsn": dsn, "replication_factor": 1, **capture},
        "tables": [{"table": table, "keys": keys} for table, keys in tables.items()],
        "lake": {"path": str(folder / "lake")},
        "checkpoint": str(folder / "checkpoint"),
    }  # fmt: skip
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document))
    return path


def wrong(path: Path) -> list[str]:
    config = load_config(str(path))
    try:
        capture_checks.check(config, config.capture[0])
    except ConfigurationError as error:
        return error.message.splitlines()
    return []


def mended(sentence: str) -> str:
    """The statement that a sentence says to run."""
    return sentence.rpartition("Run: ")[2]


WRONG = {
    "mariadb": {"binlog_format": "MIXED", "binlog_row_image": "NOBLOB"},
    "mysql": {"binlog_format": "MIXED", "binlog_row_image": "NOBLOB", "binlog_row_value_options": "PARTIAL_JSON"},
}
"""What each server is set to, so that its log lacks something."""


def test_what_is_said_to_be_run_mends_a_server(
    binlog_server: BinlogDatabase, binlog_database: str, reader: str, kafka: Broker, tmp_path: Path
) -> None:
    db, settings, is_mariadb = binlog_database, WRONG[binlog_server.part], binlog_server.part == "mariadb"
    binlog_server.execute(
        "CREATE TABLE parents (id int PRIMARY KEY)",
        "CREATE TABLE items (id int, note text)",
        "CREATE TABLE parts (id int PRIMARY KEY, p int, FOREIGN KEY of_parent (p) REFERENCES parents (id) ON DELETE CASCADE)",
        f"CREATE TABLE hosts (id int PRIMARY KEY, at {'inet6' if is_mariadb else 'varchar(45)'})",
        "CREATE VIEW shown AS SELECT * FROM items",
        database=db,
    )
    tables = {f"{db}.{name}": ["id"] for name in ("items", "parts", "shown", "gone")}
    path = pipeline(tmp_path, address(binlog_server, reader), kafka, tables)
    assert len(wrong(path)) == 1 + len(tables), "it may see nothing"
    binlog_server.execute(*render_all(path)["administrator_sql"])
    before = dict(binlog_server.execute("SHOW GLOBAL VARIABLES LIKE 'binlog%'"))
    binlog_server.execute(*(f"SET GLOBAL {name} = '{value}'" for name, value in settings.items()))
    try:
        sentences = wrong(path)
        begins = [
            *(f"{name} is {value}" for name, value in settings.items()),
            *([f"Debezium's parser does not know the type of {db}.hosts.at"] if is_mariadb else []),
            f"{db}.items has no primary key",
            *([f"{db}.parts: what the foreign keys of_parent delete or change"] if is_mariadb else []),
            f"{db}.shown is a view",
            f"{db}.gone is not in the database",
        ]
        assert [sentence[: len(begin)] for sentence, begin in zip(sentences, begins, strict=True)] == begins
        binlog_server.execute(*(mended(sentence) for sentence in sentences if "Run: " in sentence))
        assert wrong(path) == [sentence for sentence in sentences if "Run: " not in sentence]
    finally:
        binlog_server.execute(*(f"SET GLOBAL {name} = '{before[name]}'" for name in settings))


def render_all(path: Path) -> dict[str, Any]:
    config = load_config(str(path))
    capture = capture_checks.completed(config, config.capture[0])
    tables, topics = capture_checks.tables_and_topics(config, capture)
    return render(capture, config.name, tables, topics)


def test_a_server_that_refuses_or_is_away_is_said_without_its_password(
    binlog_server: BinlogDatabase, reader: str
) -> None:
    document = {"type": "debezium", "database": binlog_server.part}
    for port in (binlog_server.port, 1):
        dsn = address(binlog_server, reader, "geheim", port)
        with pytest.raises(UnavailableError) as caught:
            require_tables(
                DebeziumCaptureConfig.model_validate(document | {"dsn": dsn}),
                [TableConfig(table="shop.items", keys=("id",))],
            )
        assert "geheim" not in str(caught.value)
    document["dsn"] = address(binlog_server, reader)
    with pytest.raises(ConfigurationError, match="refuses a statement"):
        run(DebeziumCaptureConfig.model_validate(document), ["CREATE DATABASE refused"])


def test_a_connection_is_encrypted_where_the_address_says_so(
    binlog_server: BinlogDatabase, binlog_database: str
) -> None:
    binlog_server.execute("CREATE TABLE t (id int PRIMARY KEY)", database=binlog_database)
    for mode, succeeds in (("REQUIRED", True), ("VERIFY_IDENTITY", False)):  # the server's certificate is its own
        document = {
            "type": "debezium",
            "database": binlog_server.part,
            "dsn": f"{binlog_server.dsn('')}?ssl-mode={mode}",
        }
        capture = DebeziumCaptureConfig.model_validate(document)
        if succeeds:
            require_tables(capture, [TableConfig(table=f"{binlog_database}.t", keys=("id",))])
        else:
            with pytest.raises(UnavailableError):
                require_tables(capture, [TableConfig(table=f"{binlog_database}.t", keys=("id",))])


@pytest.mark.parametrize("database", ["postgresql", *DSN])
def test_a_connector_knows_every_setting_that_is_rendered_for_it(database: str, connect: Connect) -> None:
    """By the connector's own class, in the worker; no server is asked, and none of the engine's is needed."""
    dsn = DSN.get(database, "postgresql://u:p@127.0.0.1:1/d").replace("db.example", "127.0.0.1")
    own = {"postgresql": "public.", "sqlserver": "shop.dbo.", "oracle": "HR."}.get(database, "shop.")
    document = {
        "type": "debezium", "database": database, "dsn": dsn, "bootstrap_servers": "127.0.0.1:1", "signal_topic": "s",
        "signal_table": f"{own}signals", "heartbeat_table": f"{own}beat",
    }  # fmt: skip
    capture = DebeziumCaptureConfig.model_validate(document)
    tables = TABLES.get(database, ["public.t"])
    rendered = render(capture, "desk", tables, details=Details(keys={tables[0]: ["a"]}), reveal=True)
    settings = rendered["connector"]["config"] | VALID_NAMES
    name = settings["connector.class"]
    more = {"name": "desk", **({"driver.loginTimeout": "1"} if database == "sqlserver" else {})}
    status, report = request_json(
        connect.url, "PUT", f"/connector-plugins/{name.rpartition('.')[2]}/config/validate", settings | more
    )
    assert status == 200, report
    known = {entry["definition"]["name"] for entry in report["configs"]}
    passed_on = (
        "driver.",
        "producer.override.",
        "schema.history.internal.",
        "signal.kafka.",
        "topic.creation.default.",
    )
    undeclared = {setting for setting in settings if not setting.startswith(passed_on)} - known
    assert undeclared == {"field.name.adjustment.mode"} | UNDECLARED.get(database, set())
    refused = {value["name"] for entry in report["configs"] if (value := entry["value"]) and value["errors"]}
    assert refused <= {"database.hostname", "connector.class", "database.url"}, "where no server answers"


UNDECLARED = {"mysql": {"binary.handling.mode"}, "mariadb": {"binary.handling.mode"}}
"""What a class of all connectors reads, and these do not declare."""


PLAIN: dict[str, tuple[str, Any]] = {
    "ub bigint unsigned": ("18446744073709551615", 2**64 - 1),
    "ui int unsigned": ("4294967295", 2**32 - 1),
    "du decimal(10,2) unsigned": ("1.10", Decimal("1.10")),
    "de decimal(38,10)": (
        "1234567890123456789012345678.0123456789",
        Decimal("1234567890123456789012345678.0123456789"),
    ),
    "y year": ("2155", 2155),
    "da date": ("'2024-02-29'", "2024-02-29"),
    "t time": ("'12:34:56'", "12:34:56"),
    "t6 time(6)": ("'12:34:56.123456'", "12:34:56.123456"),
    "dt datetime": ("'2024-02-29 12:34:56'", "2024-02-29T12:34:56"),
    "dt6 datetime(6)": ("'2024-02-29 12:34:56.123456'", "2024-02-29T12:34:56.123456"),
    "ts6 timestamp(6) NULL": ("'2024-02-29 12:34:56.789012'", "2024-02-29T12:34:56.789012Z"),
    "t1 tinyint(1)": ("5", 5),
    "s set('a','b','c')": ("'a,c'", "a,c"),
    "e enum('x','y ''z')": ("'y ''z'", "y 'z"),
    "b12 bit(12)": ("b'101'", "000000000101"),
    "vb varbinary(20)": ("x'0001FEFF'", "AAH+/w=="),
    "half int GENERATED ALWAYS AS (t1 DIV 2) VIRTUAL": ("DEFAULT", 2),
    "twice int GENERATED ALWAYS AS (t1 * 2) STORED": ("DEFAULT", 10),
}
OWN: dict[str, dict[str, tuple[str, Any]]] = {
    "mariadb": {"u uuid": ("'6f9619ff-8b86-d011-b42d-00c04fc964ff'", "6f9619ff-8b86-d011-b42d-00c04fc964ff")},
    "mysql": {"v vector(3)": ("STRING_TO_VECTOR('[1.5, -2, 0.25]')", [1.5, -2.0, 0.25])},
}
"""Types that one kind of server alone has."""
EDGES: dict[str, tuple[str, Any]] = {
    "t time": ("'-838:59:59'", "-838:59:59"),
    "t6 time(6)": ("'-00:00:00.000001'", "-00:00:00.000001"),
    "da date": ("'0044-03-15'", "0044-03-15"),
    "zero date": ("'0000-00-00'", None),
    "dt3 datetime(3)": ("'0001-01-01 00:00:00.001'", "0001-01-01T00:00:00.001000"),
    "dt6 datetime(6)": ("'9999-12-31 23:59:59.999999'", "9999-12-31T23:59:59.999999"),
    "ts6 timestamp(6) NULL": ("'2038-01-19 03:14:07.999999'", "2038-01-19T03:14:07.999999Z"),
}
"""The year 0000 is in the stream alone: in a snapshot it stops the connector."""
MODES: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "rendered": ({}, {}),
    "microseconds": ({"time.precision.mode": "microseconds"}, {}),
    "isostring": ({"time.precision.mode": "isostring"}, {"t": None, "t6": None, "dt3": "0001-01-01T00:00:00.001"}),
    "nanoseconds": (
        {"time.precision.mode": "nanoseconds"},
        {"dt3": "1754-08-30T22:43:41.129654848", "dt6": "1816-03-30T05:56:08.066276376"},
    ),
    "connect": (
        {"time.precision.mode": "connect", "decimal.handling.mode": "precise", "bigint.unsigned.handling.mode": "long"},
        {"t6": "12:34:56.123000", "dt6": "2024-02-29T12:34:56.123000"},
    ),
}
"""Settings of a connector, and what it loses: of the edges, by `connect` of plain values (it takes no edges)."""


def literals(values: dict[str, tuple[str, Any]]) -> str:
    return ", ".join(literal for literal, _ in values.values())


def canonical(values: dict[str, tuple[str, Any]]) -> dict[str, Any]:
    return {column.partition(" ")[0]: value for column, (_, value) in values.items()}


@pytest.mark.covers(("mariadb", "mysql"), "debezium", ("type", "snapshot"), "live")
def test_values_are_exact_as_rendered_and_lose_what_is_documented_otherwise(
    binlog_server: BinlogDatabase, binlog_database: str, kafka: Broker, connect: Connect, tmp_path: Path
) -> None:
    db, plain_columns = binlog_database, PLAIN | OWN[binlog_server.part]
    utc = ("SET sql_mode = ''", "SET time_zone = '+00:00'")
    binlog_server.execute(
        *utc,
        f"CREATE TABLE plain (id int PRIMARY KEY, {', '.join(plain_columns)})",
        f"CREATE TABLE edges (id int PRIMARY KEY, {', '.join(EDGES)}, y year)",
        f"INSERT INTO plain VALUES (1, {literals(plain_columns)})",
        f"INSERT INTO edges VALUES (1, {literals(EDGES)}, 1901)",
        database=db,
    )
    keys = {f"{db}.plain": ("id",), f"{db}.edges": ("id",)}
    topics: dict[str, Topics] = {}
    try:
        for mode, (settings, _) in MODES.items():
            tables = {table: list(key) for table, key in keys.items() if mode != "connect" or table.endswith("plain")}
            path = pipeline(tmp_path, binlog_server.dsn(""), kafka, tables)
            name = load_config(str(path)).name
            connect.put_connector(name, render_revealed(path) | settings)
            topics[mode] = Topics(kafka, name, {table: keys[table] for table in tables})
        for read in topics.values():
            read.changes(len(read.context.tables))  # the snapshot is read before the stream begins
        binlog_server.execute(
            *utc,
            f"INSERT INTO plain VALUES (2, {literals(plain_columns)})",
            f"INSERT INTO edges VALUES (2, {literals(EDGES)}, 0)",
            database=db,
        )
        for mode, (_, lost) in MODES.items():
            rows = topics[mode].rows(2 * len(topics[mode].context.tables))
            plain = canonical(plain_columns) | (lost if mode == "connect" else {})
            assert [r.values() for r in rows[f"{db}.plain"].values()] == [{"id": n} | plain for n in (1, 2)], mode
            for state, year in zip(rows.get(f"{db}.edges", {}).values(), (1901, 0), strict=mode != "connect"):
                assert state.values() == {"id": state.values()["id"], "y": year} | canonical(EDGES) | lost, mode
    finally:
        for read in topics.values():
            read.consumer.close()
            connect.delete_connector(read.prefix)


def test_a_user_with_the_printed_rights_alone_captures_and_applies(  # noqa: PLR0917 - fixtures
    binlog_server: BinlogDatabase,
    binlog_database: str,
    reader: str,
    kafka: Broker,
    connect: Connect,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    db = binlog_database
    binlog_server.execute(
        "CREATE TABLE items (id int PRIMARY KEY, note text)", "INSERT INTO items VALUES (1, 'before')", database=db
    )
    dsn = address(binlog_server, reader)
    own = {"signal_table": f"{db}.signals", "heartbeat_table": f"{db}.beat", "connect_url": connect.url}
    path = pipeline(tmp_path, dsn, kafka, {f"{db}.items": ["id"]}, **own)
    binlog_server.execute(*render_all(path)["administrator_sql"])
    cli.main(["capture", str(path), "--apply"], standalone_mode=False)
    name = load_config(str(path)).name
    topics = Topics(kafka, name, {f"{db}.items": ("id",)})
    try:
        topics.changes(1)  # what is committed before the snapshot ends is in it
        binlog_server.execute("UPDATE items SET note = 'after'", database=db)
        (state,) = topics.rows(2)[f"{db}.items"].values()
        assert state.values() == {"id": 1, "note": "after"}
        assert wrong(path) == []
        own = {"max.batch.size": "1024", "message.key.columns": f"{db}.items:note"}
        connect.put_connector(name, render_revealed(path) | own | {"bigint.unsigned.handling.mode": "long"})
        (differs,) = wrong(path)
        assert "bigint.unsigned.handling.mode is long, not precise" in differs
        kept = f"the connector {name} keeps what is not rendered: {', '.join(own)}\n"
        without_the_database = {"dsn": dsn.replace(f":{reader}@", ":refused@"), "password_reference": reader}
        for differing in ({}, without_the_database):
            document = json.loads(path.read_text())
            document["capture"] |= differing
            path.write_text(json.dumps(document))
            cli.main(["capture", str(path), "--apply"], standalone_mode=False)
            assert kept in capsys.readouterr().err
            assert applied(path) == {"name": name} | render_revealed(path) | own
    finally:
        topics.consumer.close()
        connect.delete_connector(name)


def applied(path: Path) -> dict[str, str] | None:
    config = load_config(str(path))
    (capture,) = config.capture
    assert isinstance(capture, DebeziumCaptureConfig)
    return connector_settings(capture, config.name)


def render_revealed(path: Path) -> dict[str, str]:
    config = load_config(str(path))
    capture = capture_checks.completed(config, config.capture[0])
    tables, topics = capture_checks.tables_and_topics(config, capture)
    settings: dict[str, str] = render(capture, config.name, tables, topics, reveal=True)["connector"]["config"]
    return settings

"""The connector, the SQL and the checks of each engine's capture, beside PostgreSQL's (test_capture.py)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sqlglot
from pydantic import TypeAdapter, ValidationError

from glue_jobs.config.pipeline import PipelineConfig
from glue_jobs.operations import capture_checks
from schemas.errors import ConfigurationError
from schemas.tables import TableConfig
from sources.capture.binlog_findings import findings
from sources.capture.binlog_server import BinlogColumn, BinlogServer, BinlogTable
from sources.capture.debezium import DebeziumCaptureConfig
from sources.capture.rendering import CaptureConfig, as_json, render
from sources.capture.source import compared

SECRET = "s3cr@t"
DSN = {
    "mysql": "mysql://me:s3cr%40t@db.example/",
    "mariadb": "mariadb://me:s3cr%40t@db.example:3307/shop",
    "sqlserver": "sqlserver://me:s3cr%40t@db.example/shop",
    "oracle": "oracle://c%23%23me:s3cr%40t@db.example:2484/ORCLCDB?pdb=orclpdb1&protocol=tcps",
}
TABLES = {
    "mysql": ["shop.items", "other.Mixed, 1"],
    "mariadb": ["shop.items"],
    "sqlserver": ["shop.dbo.items", "other.dbo.it's"],
    "oracle": ["HR.STAFF", "ORCLPDB1.HR.it's"],
}
BROKERS = "kafka.example:9094"
TLS = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.jaas.config": f'required password="{SECRET}";'}
DIALECT = {"mysql": "mysql", "mariadb": "mysql", "sqlserver": "tsql", "oracle": "oracle"}


def config(database: str, **members: Any) -> DebeziumCaptureConfig:
    brokers = {"bootstrap_servers": BROKERS, "kafka_options": TLS}
    document = {"type": "debezium", "database": database, "dsn": DSN[database], **brokers, **members}
    built = TypeAdapter[CaptureConfig](CaptureConfig).validate_python(document)
    assert isinstance(built, DebeziumCaptureConfig)
    return built


def rendered(database: str, *, reveal: bool = False, **members: Any) -> dict[str, Any]:
    return render(config(database, **members), "desk", TABLES[database], reveal=reveal)


def settings(database: str, **members: Any) -> dict[str, str]:
    return dict(rendered(database, reveal=True, **members)["connector"]["config"])


@pytest.mark.parametrize("database", DSN)
def test_what_every_store_needs_is_set_for_every_engine(database: str) -> None:
    connector = settings(database)
    expected = {
        "skipped.operations": "none", "decimal.handling.mode": "string", "binary.handling.mode": "bytes",
        "column.propagate.source.type": ".*", "value.converter.schemas.enable": "true", "tombstones.on.delete": "true",
        "value.converter.replace.null.with.default": "false", "include.schema.changes": "false",
        "schema.history.internal.kafka.bootstrap.servers": BROKERS, "database.hostname": "db.example",
        "schema.history.internal.kafka.topic": "desk.schema-history", "event.processing.failure.handling.mode": "fail",
        "schema.history.internal.producer.security.protocol": "SASL_SSL",
        "schema.history.internal.consumer.sasl.jaas.config": TLS["sasl.jaas.config"], "database.password": SECRET,
    }  # fmt: skip
    assert {name: connector.get(name) for name in expected} == expected
    assert all(isinstance(value, str) for value in connector.values())


def test_each_engines_own_settings_are_those_that_its_values_need() -> None:
    assert {
        database: {name: value for name, value in settings(database).items() if name in OWN[database]}
        for database in OWN
    } == OWN


OWN = {
    "mysql": {
        "connector.class": "io.debezium.connector.mysql.MySqlConnector", "database.port": "3306",
        "database.include.list": "shop,other", "table.include.list": r"shop\.items,other\.Mixed\x2c 1",
        "bigint.unsigned.handling.mode": "precise", "time.precision.mode": "adaptive_time_microseconds",
        "enable.time.adjuster": "false", "database.ssl.mode": "verify_identity", "poll.interval.ms": "10",
    },
    "mariadb": {
        "connector.class": "io.debezium.connector.mariadb.MariaDbConnector", "database.port": "3307",
        "table.include.list": r"shop\.items", "database.ssl.mode": "verify-full",
    },
    "sqlserver": {
        "connector.class": "io.debezium.connector.sqlserver.SqlServerConnector", "database.names": "shop,other",
        "table.include.list": r"dbo\.items,dbo\.it's", "driver.encrypt": "true", "driver.trustServerCertificate": "false",
        "snapshot.isolation.mode": "snapshot", "poll.interval.ms": "500",
    },
    "oracle": {
        "connector.class": "io.debezium.connector.oracle.OracleConnector", "database.dbname": "ORCLCDB",
        "database.pdb.name": "orclpdb1", "lob.enabled": "true", "log.mining.strategy": "redo_log_catalog",
        "table.include.list": r"HR\.STAFF,HR\.it's", "database.user": "c##me",
        "database.url": "jdbc:oracle:thin:@tcps://db.example:2484/ORCLCDB?ssl_server_dn_match=true",
    },
}  # fmt: skip


@pytest.mark.parametrize("database", DSN)
def test_no_secret_is_shown_to_anybody_but_the_worker(database: str) -> None:
    shown = as_json(rendered(database))
    assert "s3cr" not in shown
    assert '"schema.history.internal.producer.security.protocol": "SASL_SSL"' in shown
    reference = "${secretsManager:rds:password}"
    assert settings(database, password_reference=reference)["database.password"] == reference
    assert "s3cr" not in repr(config(database))


@pytest.mark.parametrize("database", DSN)
def test_a_history_has_brokers_those_of_the_source_or_its_own(database: str) -> None:
    with pytest.raises(ConfigurationError, match="no brokers are known"):
        rendered(database, bootstrap_servers=None)
    source = {
        "type": "kafka", "envelope": "debezium", "bootstrap_servers": "of.source:1", "topics": ["t"],
        "options": {"kafka.security.protocol": "SSL", "maxOffsetsPerTrigger": "9"},
    }  # fmt: skip
    pipeline = PipelineConfig.model_validate(
        {
            "name": "p",
            "source": source,
            "capture": {"type": "debezium", "database": database, "dsn": DSN[database]},
            "tables": [{"table": TABLES[database][0], "keys": ["id"]}],
            "lake": {"path": "lake"},
            "checkpoint": "checkpoint",
        }
    )
    taken = capture_checks.completed(pipeline, pipeline.capture[0])
    connector = render(taken, "desk", TABLES[database])["connector"]["config"]
    history = {
        name.removeprefix("schema.history.internal."): v for name, v in connector.items() if name.startswith("schema.")
    }
    assert history["kafka.bootstrap.servers"] == "of.source:1"
    assert history["producer.security.protocol"] == history["consumer.security.protocol"] == "SSL"
    assert not [name for name in history if "maxOffsets" in name]


def test_two_connectors_of_a_server_are_two_replicas() -> None:
    ids = {settings("mariadb", connector=name)["database.server.id"] for name in ("a", "b", "desk")}
    assert len(ids) == 3
    assert settings("mariadb", connector="a")["database.server.id"] in ids, "and stay the same"
    assert settings("mariadb", server_id=77)["database.server.id"] == "77"


def test_signals_come_by_table_by_topic_or_by_both() -> None:
    table = settings("mariadb", signal_table="shop.signals")
    assert (table["signal.data.collection"], table["signal.enabled.channels"]) == ("shop.signals", "source")
    assert "read.only" not in table
    topic = settings("mariadb", signal_topic="signals")
    assert (topic["signal.enabled.channels"], topic["read.only"]) == ("kafka", "true")
    assert topic["signal.kafka.bootstrap.servers"] == BROKERS
    assert topic["signal.consumer.security.protocol"] == "SASL_SSL"
    both = settings("mariadb", signal_table="shop.signals", signal_topic="signals")
    assert both["signal.enabled.channels"] == "source,kafka"
    assert "read.only" not in both


@pytest.mark.parametrize(
    ("database", "members"),
    [
        ("mysql", {"slot": "desk"}),
        ("oracle", {"server_id": 5}),
        ("mysql", {"dsn": "mysql://u:p@db/?ssl-mode=REQUIRED"}),
        ("sqlserver", {"dsn": "sqlserver://u:p@db/d?trustServerCertificate=true"}),
        ("oracle", {"dsn": "oracle://u:p@db/d"}),
        ("mariadb", {"dsn": "postgresql://u:p@127.0.0.1/d"}),
        ("mariadb", {"kafka_options": {"security.protocol": "PLAINTEXT"}}),
    ],
)
def test_a_key_or_an_address_that_does_not_fit_is_refused(database: str, members: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        config(database, **members)
    assert "u:p@" not in caught.value.errors(include_input=False)[0]["msg"]


@pytest.mark.parametrize("place", ["db:x/shop", "db/?ssl-mode=MAYBE", "[::1/shop", "\N{ACCOUNT OF}/shop"])
def test_an_address_that_is_none_is_refused_without_being_shown(place: str) -> None:
    with pytest.raises(ConfigurationError, match=r"capture\.dsn") as caught:
        render(config("mysql", dsn=f"mysql://me:geheim@{place}", allow_plaintext=True), "desk", TABLES["mysql"])
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("database", DSN)
def test_the_sql_for_people_parses_in_the_engines_own_dialect(database: str) -> None:
    own = {"sqlserver": "shop.dbo.", "oracle": "HR."}.get(database, "shop.")
    result = rendered(database, signal_table=f"{own}signals", heartbeat_table=f"{own}beat")
    statements = [sql for name in ("source_sql", "administrator_sql", "check_sql") for sql in result.get(name, [])]
    assert statements
    beat = result["connector"]["config"]["heartbeat.action.query"]
    for sql in [*statements, beat]:
        if sql.startswith(("--", "ALTER", "GRANT", "USE ", "IF ")):
            continue  # no grammar that could be had knows these
        assert sqlglot.parse(sql, dialect=DIALECT[database]), sql
    assert all("it's" not in sql for sql in statements if "it''s" in sql), "a quote in a name ends no literal"


def test_an_engine_without_a_client_says_which_queries_to_run() -> None:
    for database, title, needle in (
        ("sqlserver", "SQL Server", "is_cdc_enabled"),
        ("oracle", "Oracle", "SUPPLEMENTAL_LOG_DATA_MIN"),
    ):
        (note,) = compared(
            config(database), "desk", [TableConfig(table=TABLES[database][0], keys=("id",))]
        ).findings.notes
        assert note.startswith(f"{title} is not asked from here")
        assert needle in note
        assert SECRET not in note


def test_a_table_of_sql_server_is_named_with_its_database() -> None:
    with pytest.raises(ConfigurationError, match=r"shop\.dbo\.tickets"):
        render(config("sqlserver"), "desk", ["dbo.items"])


# What is said of MySQL and MariaDB

ID, NOTE = BinlogColumn("id"), BinlogColumn("note")
ITEMS = BinlogTable("shop.items", "BASE TABLE", ("id",), (ID, NOTE))
SERVER = BinlogServer(
    {"log_bin": "ON", "binlog_format": "ROW", "binlog_row_image": "FULL", "version": "9.5.0", "gtid_mode": "ON"},
    "'me'@'%'",
    ("GRANT RELOAD, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `me`@`%`", "GRANT SELECT ON `shop`.* TO `me`@`%`"),
    ((), ()),
    {"shop.items": ITEMS},
)


def wrong_and_notes(server: BinlogServer, **members: Any) -> tuple[list[str], list[str]]:
    result = findings(config("mysql", **members), [TableConfig(table="shop.items", keys=("id",))], server)
    return result.wrong, result.notes


def having(server: BinlogServer = SERVER, **variables: str) -> BinlogServer:
    return replace(server, variables=dict(server.variables) | variables)


def test_a_server_that_tells_everything_is_right() -> None:
    assert wrong_and_notes(SERVER) == ([], [])
    assert wrong_and_notes(having(version="11.4.5-MariaDB-log"), signal_topic="signals") == ([], [])
    everything = replace(SERVER, grants=("GRANT ALL PRIVILEGES ON *.* TO `me`@`%` WITH GRANT OPTION",))
    assert wrong_and_notes(everything) == ([], [])


@pytest.mark.parametrize(
    ("server", "mended"),
    [
        (having(log_bin="OFF"), "set log_bin in its configuration"),
        (having(binlog_format="MIXED"), "Run: SET GLOBAL binlog_format = 'ROW'"),
        (having(binlog_row_image="MINIMAL"), "Run: SET GLOBAL binlog_row_image = 'FULL'"),
        (having(binlog_row_value_options="PARTIAL_JSON"), "Run: SET GLOBAL binlog_row_value_options = ''"),
        (
            replace(SERVER, grants=("GRANT SELECT ON *.* TO `me`@`%`",)),
            "GRANT REPLICATION SLAVE, REPLICATION CLIENT, RELOAD ON",
        ),
        (replace(SERVER, log_filters=((), ("shop",))), "the binary log leaves the database shop out"),
        (replace(SERVER, log_filters=(("other",), ())), "the binary log leaves the database shop out"),
        (replace(SERVER, unparsed=("shop.hosts.at",)), "ALTER TABLE `shop`.`hosts` MODIFY `at` varchar(45)"),
        (replace(SERVER, tables={}), "is not in the database"),
        (replace(SERVER, tables={"shop.items": replace(ITEMS, kind="VIEW", keys=())}), "is a view"),
        (
            replace(SERVER, tables={"shop.items": replace(ITEMS, keys=())}),
            "ALTER TABLE `shop`.`items` ADD PRIMARY KEY (`id`)",
        ),
        (
            replace(SERVER, tables={"shop.items": replace(ITEMS, keys=("no",))}),
            "DROP PRIMARY KEY, ADD PRIMARY KEY (`id`)",
        ),
        (
            replace(SERVER, tables={"shop.items": replace(ITEMS, cascades=("fk",))}),
            "what the foreign keys fk delete or change",
        ),
        (
            replace(SERVER, tables={"shop.items": replace(ITEMS, readable=False)}),
            "GRANT SELECT ON `shop`.`items` TO 'me'@'%'",
        ),
    ],
)
def test_what_a_log_lacks_is_wrong_with_what_mends_it(server: BinlogServer, mended: str) -> None:
    (wrong,), notes = wrong_and_notes(server)
    assert mended in wrong
    assert notes == []


def test_a_server_whose_log_has_cascades_is_right() -> None:
    cascading = replace(SERVER, tables={"shop.items": replace(ITEMS, cascades=("fk",))})
    assert wrong_and_notes(having(cascading, innodb_native_foreign_keys="OFF")) == ([], [])


def test_rights_that_a_role_may_bring_are_not_missed() -> None:
    assert wrong_and_notes(replace(SERVER, grants=("GRANT `app`@`%` TO `me`@`%`",))) == ([], [])


def test_a_log_that_is_kept_for_hours_is_a_note() -> None:
    wrong, (note,) = wrong_and_notes(having(binlog_expire_logs_seconds="3600"))
    assert wrong == []
    assert "kept for 3600 s" in note


def test_snapshots_by_topic_alone_need_gtids_of_mysql() -> None:
    (wrong,), _ = wrong_and_notes(having(gtid_mode="OFF"), signal_topic="signals")
    assert wrong.startswith("gtid_mode is not ON")
    assert wrong_and_notes(having(gtid_mode="OFF"), signal_topic="signals", signal_table="shop.signals") == ([], [])

"""What captures the tables is rendered with the settings that correctness needs, and without secrets."""

from __future__ import annotations

import json
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from pydantic import TypeAdapter

from schemas.errors import ConfigurationError
from sources.capture.debezium import kept_settings
from sources.capture.rendering import CaptureConfig, Details, as_json, render

DSN = "postgresql://me:s3cr%40t@db.example:5433/shop?sslmode=verify-full"
TABLES = ["public.tickets", 'inv.Mixed "Case", 1']


def config(**members: Any) -> CaptureConfig:
    return TypeAdapter[CaptureConfig](CaptureConfig).validate_python({"dsn": DSN, **members})


def debezium(**members: Any) -> dict[str, str]:
    settings: dict[str, str] = render(config(type="debezium", **members), "desk", TABLES)["connector"]["config"]
    return settings


def test_a_connector_keeps_what_a_store_needs() -> None:
    settings = debezium()
    assert settings["skipped.operations"] == "none"
    assert settings["decimal.handling.mode"] == "string"
    assert settings["value.converter.schemas.enable"] == "true"
    assert settings["value.converter.replace.null.with.default"] == "false"
    assert settings["column.propagate.source.type"] == ".*"
    assert settings["binary.handling.mode"] == "bytes"
    assert settings["publish.via.partition.root"] == "true"
    assert settings["heartbeat.interval.ms"] == "10000"
    assert settings["database.sslmode"] == "verify-full"
    assert all(isinstance(value, str) for value in settings.values())


def test_a_table_is_named_as_a_regular_expression_of_its_own() -> None:
    first, second = debezium()["table.include.list"].split(",")
    assert first == r"public\.tickets"
    assert r"\x2c" in second


def test_the_topic_prefix_comes_from_the_sources_topics() -> None:
    rendered = render(config(type="debezium"), "desk", ["public.tickets"], ["helpdesk.eu.public.tickets"])
    assert rendered["connector"]["config"]["topic.prefix"] == "helpdesk.eu"
    assert debezium()["topic.prefix"] == "desk"
    assert debezium(topic_prefix="mine")["topic.prefix"] == "mine"


def test_signals_and_a_heartbeat_table_come_with_their_sql() -> None:
    rendered = render(config(type="debezium", signal_table="ops.signal", heartbeat_table="ops.beat"), "desk", TABLES)
    settings = rendered["connector"]["config"]
    assert (settings["signal.data.collection"], settings["signal.enabled.channels"]) == ("ops.signal", "source")
    assert settings["heartbeat.action.query"].startswith('INSERT INTO "ops"."beat"')
    assert any('"ops"."signal"' in statement for statement in rendered["source_sql"])


@pytest.mark.parametrize("kind", ["debezium", "dms"])
def test_a_secret_is_shown_to_nobody_but_the_worker(kind: str) -> None:
    chosen = config(type=kind)
    assert "s3cr" not in as_json(render(chosen, "desk", TABLES))
    assert "s3cr" not in repr(chosen)
    assert "s3cr@t" in as_json(render(chosen, "desk", TABLES, reveal=True))


def test_a_password_may_be_the_workers_own_reference() -> None:
    reference = "${secretsManager:rds:password}"
    revealed = render(config(type="debezium", password_reference=reference), "desk", TABLES, reveal=True)
    assert revealed["connector"]["config"]["database.password"] == reference


def test_what_is_not_rendered_is_kept_unless_its_class_is_another() -> None:
    rendered = debezium()
    own = {"message.key.columns": "a:b", "transforms": "route", "value.converter.schemas.cache.size": "10"}
    running = rendered | own | {"name": "desk", "poll.interval.ms": "7", "unavailable.value.placeholder": "?"}
    assert kept_settings(running, rendered) == own
    assert kept_settings(running, rendered | {"value.converter": "Avro"}).keys() == {
        "message.key.columns",
        "transforms",
    }
    assert kept_settings(running | {"connector.class": "Other"}, rendered) == kept_settings({}, rendered) == {}


def test_dms_requests_have_the_shapes_of_its_api() -> None:
    rendered = render(config(type="dms", slot="desk"), "help_desk", TABLES)
    model = botocore.session.get_session().get_service_model("dms")
    bodies = {"CreateEndpoint": ["source_endpoint", "target_endpoint"], "CreateReplicationTask": ["replication_task"]}
    for operation, names in bodies.items():
        for name in names:
            shape = model.operation_model(operation).input_shape
            assert shape is not None
            report = ParamValidator().validate(rendered[name], shape)
            assert not report.has_errors(), report.generate_report()


def test_a_dms_task_tells_order_keys_and_nulls() -> None:
    rendered = render(config(type="dms"), "desk", TABLES)
    kinesis = rendered["target_endpoint"]["KinesisSettings"]
    assert all(kinesis[name] for name in ("IncludeTransactionDetails", "IncludeNullAndEmpty", "UseLargeIntegerValue"))
    settings = json.loads(rendered["replication_task"]["ReplicationTaskSettings"])
    assert settings["BeforeImageSettings"]["FieldName"] == "before-image"
    assert settings["TargetMetadata"]["BatchApplyEnabled"] is False
    assert rendered["source_endpoint"]["PostgreSQLSettings"]["FailTasksOnLobTruncation"] is True


def test_dms_rules_select_each_table_literally_and_choose_the_partition_key() -> None:
    def rules(**members: Any) -> list[dict[str, Any]]:
        task = render(config(type="dms", **members), "desk", ["public.my_table"])["replication_task"]
        return list(json.loads(task["TableMappings"])["rules"])

    select, mapping = rules()
    assert select["object-locator"] == {"schema-name": "public", "table-name": "my[_]table"}
    assert mapping["mapping-parameters"] == {"partition-key-type": "primary-key"}
    assert len({rule["rule-id"] for rule in rules()}) == 2
    assert [rule["rule-type"] for rule in rules(partition_key="schema-table")] == ["selection"]


def test_dms_rules_select_the_partitions_of_a_partitioned_table() -> None:
    rendered = render(
        config(type="dms"), "desk", ["public.visits"], details=Details({"public.visits": ["public.visits_*"]})
    )
    rules = json.loads(rendered["replication_task"]["TableMappings"])["rules"]
    assert {rule["object-locator"]["table-name"] for rule in rules} == {"visits[_]%"}
    assert any("pg_partition_tree" in statement for statement in rendered["source_sql"])


def test_a_connector_also_captures_a_table_under_a_name_that_it_gets() -> None:
    parts = {"public.tickets": ["public.cases", "public.tickets_*"]}
    rendered = render(config(type="debezium"), "desk", ["public.tickets"], details=Details(parts))
    assert rendered["connector"]["config"]["table.include.list"] == r"public\.tickets,public\.cases"
    assert not any("cases" in statement for statement in rendered["source_sql"]), "it may not be there yet"


@pytest.mark.parametrize("dsn", ["host=db dbname=shop", "mysql://a@b/c", "postgresql://a@b", "postgresql://a@b:x/c"])
def test_a_dsn_that_is_no_uri_is_refused_without_being_shown(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match=r"capture\.dsn") as caught:
        render(config(type="debezium", dsn=dsn), "desk", TABLES)
    assert dsn not in str(caught.value)


def test_a_table_without_a_schema_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="has no schema"):
        render(config(type="dms"), "desk", ["tickets"])

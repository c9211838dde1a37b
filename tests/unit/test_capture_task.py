"""The replication task in AWS against the one that is rendered, by botocore's own model of the answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from pydantic import SecretStr

from schemas.errors import UnavailableError
from sources.capture.dms import DmsCaptureConfig
from sources.capture.dms_task import (
    described_target,
    described_task,
    is_running,
    region_of,
    target_differences,
    task_differences,
)
from sources.capture.rendering import Details, render
from sources.capture.target import tables_named

DMS = DmsCaptureConfig(
    type="dms",
    dsn=SecretStr("postgresql://u:p@localhost/shop"),
    replication_instance_arn="arn:aws:dms:eu-central-1:123456789012:rep:desk",
)
NAMES = ["public.tickets", "public.my_table", "public.visits_*"]
PARTITIONS = {"public.visits": ["public.visits_*"]}


RENDERED = render(DMS, "desk", ["public.tickets", "public.my_table", "public.visits"], details=Details(PARTITIONS))


def created(**members: Any) -> dict[str, Any]:
    """The task that was created as `ragstream capture` renders it, but for some members."""
    task: dict[str, Any] = RENDERED["replication_task"]
    return task | {"Status": "running"} | members


def with_settings(**members: Any) -> dict[str, Any]:
    settings = json.loads(RENDERED["replication_task"]["ReplicationTaskSettings"])
    for name, changed in members.items():
        settings[name] = settings[name] | changed
    return created(ReplicationTaskSettings=json.dumps(settings))


def with_rules(*rules: Mapping[str, str]) -> dict[str, Any]:
    selections = [
        {"rule-type": "selection", "rule-id": str(n), "rule-name": str(n), "rule-action": rule["action"],
         "object-locator": {"schema-name": rule["schema"], "table-name": rule["table"]}}
        for n, rule in enumerate(rules)
    ]  # fmt: skip
    return created(TableMappings=json.dumps({"rules": selections}))


def differences(task: Mapping[str, Any], *before_image: str) -> list[str]:
    return list(task_differences(task, RENDERED["replication_task"], tables_named(NAMES), *before_image))


def asked(code: str | None = None, *tasks: Mapping[str, Any]) -> dict[str, Any] | None:
    client: Any = boto3.client("dms", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="s")
    with Stubber(client) as stub:
        if code:
            stub.add_client_error("describe_replication_tasks", code)
        else:
            filters = [{"Name": "replication-task-id", "Values": ["ragstream-desk"]}]
            stub.add_response("describe_replication_tasks", {"ReplicationTasks": list(tasks)}, {"Filters": filters})
        return described_task(DMS, "desk", client)


def test_a_task_that_was_created_as_rendered_is_right() -> None:
    task = asked(None, created())
    assert task is not None
    assert differences(task) == []
    assert is_running(task)
    assert not is_running(created(Status="stopped"))


def test_a_table_that_the_task_does_not_select_is_named() -> None:
    everything = {"action": "include", "schema": "public", "table": "%"}
    assert differences(with_rules(everything)) == []
    assert differences(with_rules({"action": "include", "schema": "public", "table": "tickets"})) == [
        "its table mappings do not select public.my_table, public.visits_*"
    ]
    assert differences(with_rules(everything, {"action": "exclude", "schema": "public", "table": "my[_]table"})) == [
        "its table mappings do not select public.my_table"
    ]
    assert len(differences(with_rules({"action": "include", "schema": "Public", "table": "%"}))) == 1


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"MigrationType": "full-load"}, "cdc"),
        ({"ReplicationTaskSettings": "{}"}, "BeforeImageSettings is off"),
        (with_settings(TargetMetadata={"BatchApplyEnabled": True}), "BatchApplyEnabled is on"),
        (with_settings(TargetMetadata={"LobMaxSize": 32}), "LobMaxSize is 32, not 10240"),
        (with_settings(BeforeImageSettings={"FieldName": "old"}), "FieldName of BeforeImageSettings is old"),
    ],
)
def test_a_setting_that_loses_changes_is_named(members: dict[str, Any], expected: str) -> None:
    (difference,) = differences(created(**members))
    assert expected in difference


def test_old_values_in_columns_need_the_rule_that_adds_them() -> None:
    assert differences(with_settings(BeforeImageSettings={"FieldName": "old"}), "old") == []
    (difference,) = differences(created(), "BI_*")
    assert "add-before-image-columns" in difference
    rules = json.loads(RENDERED["replication_task"]["TableMappings"])["rules"]
    added: dict[str, Any] = {"rule-type": "transformation", "rule-action": "add-before-image-columns"}
    assert differences(created(TableMappings=json.dumps({"rules": [*rules, added]})), "BI_*") == []
    added["before-image-def"] = {"column-prefix": "old_", "column-suffix": "_"}
    for name in ("BI_*", "before-image"):
        (difference,) = differences(created(TableMappings=json.dumps({"rules": [*rules, added]})), name)
        assert "makes old_*_, and" in difference


def test_a_setting_of_the_target_that_order_or_values_need_is_named() -> None:
    client: Any = boto3.client("dms", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="s")
    target = RENDERED["target_endpoint"]
    filters = [{"Name": "endpoint-arn", "Values": ["TARGET-ENDPOINT-ARN"]}]
    with Stubber(client) as stub:
        stub.add_response("describe_endpoints", {"Endpoints": [target]}, {"Filters": filters})
        described = described_target(created(), client)
    assert described is not None
    assert list(target_differences(described, target)) == []
    weak = {"IncludeTransactionDetails": False, "UseLargeIntegerValue": False, "NoHexPrefix": True}
    weaknesses = list(target_differences({"KinesisSettings": target["KinesisSettings"] | weak}, target))
    assert [text.split()[0] for text in weaknesses] == list(weak)


def test_a_missing_task_is_none_and_a_forbidden_one_is_reported() -> None:
    assert asked(None) is None
    assert asked("ResourceNotFoundFault") is None
    with pytest.raises(UnavailableError, match="AccessDeniedFault") as raised:
        asked("AccessDeniedFault")
    assert "dms:DescribeReplicationTasks" in raised.value.hint


def test_nobody_is_asked_where_the_region_was_left_open() -> None:
    assert region_of(DMS) == "eu-central-1"
    assert region_of(DmsCaptureConfig(type="dms", dsn=DMS.dsn)) is None

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
from sources.capture.dms_task import described_task, is_running, region_of, task_differences
from sources.capture.rendering import render
from sources.capture.target import tables_named

DMS = DmsCaptureConfig(
    type="dms",
    dsn=SecretStr("postgresql://u:p@localhost/shop"),
    replication_instance_arn="arn:aws:dms:eu-central-1:123456789012:rep:desk",
)
NAMES = ["public.tickets", "public.my_table", "public.visits_*"]
PARTITIONS = {"public.visits": ["public.visits_*"]}


def created(**members: Any) -> dict[str, Any]:
    """The task that was created as `ragstream capture` renders it, but for some members."""
    rendered = render(DMS, "desk", ["public.tickets", "public.my_table", "public.visits"], partitions=PARTITIONS)
    task: dict[str, Any] = rendered["replication_task"]
    return task | {"Status": "running"} | members


def with_rules(*rules: Mapping[str, str]) -> dict[str, Any]:
    selections = [
        {"rule-type": "selection", "rule-id": str(n), "rule-name": str(n), "rule-action": rule["action"],
         "object-locator": {"schema-name": rule["schema"], "table-name": rule["table"]}}
        for n, rule in enumerate(rules)
    ]  # fmt: skip
    return created(TableMappings=json.dumps({"rules": selections}))


def differences(task: Mapping[str, Any]) -> list[str]:
    return list(task_differences(task, tables_named(NAMES)))


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
    ("members", "said"),
    [
        ({"MigrationType": "full-load"}, "cdc"),
        ({"ReplicationTaskSettings": "{}"}, "BeforeImageSettings is off"),
        ({"ReplicationTaskSettings": json.dumps(
            {"BeforeImageSettings": {"EnableBeforeImage": True}, "TargetMetadata": {"BatchApplyEnabled": True}}
        )}, "BatchApplyEnabled is on"),
    ],
)  # fmt: skip
def test_a_setting_that_loses_changes_is_named(members: dict[str, Any], said: str) -> None:
    (found,) = differences(created(**members))
    assert said in found


def test_a_missing_task_is_none_and_a_forbidden_one_is_reported() -> None:
    assert asked(None) is None
    assert asked("ResourceNotFoundFault") is None
    with pytest.raises(UnavailableError, match="AccessDeniedFault") as raised:
        asked("AccessDeniedFault")
    assert "dms:DescribeReplicationTasks" in raised.value.hint


def test_nobody_is_asked_where_the_region_was_left_open() -> None:
    assert region_of(DMS) == "eu-central-1"
    assert region_of(DmsCaptureConfig(type="dms", dsn=DMS.dsn)) is None

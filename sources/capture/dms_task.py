"""The replication task in AWS, compared by `ragstream check` with the one that `ragstream capture` renders; never by a job."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from schemas.errors import UnavailableError
from sources.capture.dms import DmsCaptureConfig, task_identifier
from sources.capture.target import Table

_RUNNING = {"running", "starting", "modifying"}
_WILDCARDS = {"%": ".*", "_": "."}


def region_of(config: DmsCaptureConfig) -> str | None:
    """The Region of the replication instance; None where the configuration leaves its ARN open."""
    region = config.replication_instance_arn.split(":")[3:4]
    return region[0] if region and region[0] not in {"", "REGION"} else None


def described_task(config: DmsCaptureConfig, pipeline: str, client: Any) -> dict[str, Any] | None:
    """The task in DescribeReplicationTasks' answer, None where there is none.

    `client` is boto3's for `dms`. Raises UnavailableError, without AWS's message, when it does not answer or refuses.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    name = task_identifier(config, pipeline)
    try:
        answer = client.describe_replication_tasks(Filters=[{"Name": "replication-task-id", "Values": [name]}])
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundFault":
            return None
        reason = error.response["Error"]["Code"]
    except BotoCoreError as error:
        reason = type(error).__name__
    else:
        return next(iter(answer["ReplicationTasks"]), None)
    raise UnavailableError(
        f"DMS did not describe the task {name} ({reason}), so its tables were not compared",
        hint="Allow dms:DescribeReplicationTasks to who runs `ragstream check`.",
    )


def task_differences(task: Mapping[str, Any], tables: Sequence[Table]) -> Iterator[str]:
    """Where a task differs from what `ragstream capture` renders, as far as tables or values depend on it.

    A `*` in a table's name stands for any text.
    """
    rules = json.loads(task.get("TableMappings") or "{}").get("rules", [])
    missed = [".".join(table) for table in tables if not _selects(rules, table)]
    if missed:
        yield f"its table mappings do not select {', '.join(missed)}"
    if "cdc" not in str(task.get("MigrationType", "")):
        yield "its migration type has no ongoing changes (cdc)"
    settings = json.loads(task.get("ReplicationTaskSettings") or "{}")
    if not (settings.get("BeforeImageSettings") or {}).get("EnableBeforeImage"):
        yield "BeforeImageSettings is off: the old key's row stays when a key changes"
    if (settings.get("TargetMetadata") or {}).get("BatchApplyEnabled"):
        yield "BatchApplyEnabled is on: changes may be lost on a stream"


def is_running(task: Mapping[str, Any]) -> bool:
    """Whether the task sends changes."""
    return task.get("Status") in _RUNNING


def _selects(rules: Sequence[Mapping[str, Any]], table: Table) -> bool:
    """Whether the selection rules include a table, and none excludes it: an exclusion wins, in any order."""
    actions = {
        rule.get("rule-action")
        for rule in rules
        if rule.get("rule-type") == "selection" and _matches(rule.get("object-locator", {}), table)
    }
    return bool(actions & {"include", "explicit"}) and "exclude" not in actions


def _matches(locator: Mapping[str, str], table: Table) -> bool:
    """Whether a rule's patterns cover a table; one that is named with a `*` is covered where any text may stand."""
    names = (("schema-name", table.schema), ("table-name", table.name))
    return all(_pattern(locator.get(key, "")).fullmatch(name.replace("*", "\0")) for key, name in names)


def _pattern(text: str) -> re.Pattern[str]:
    """A mapping rule's pattern: % is any text, _ any character, and brackets hold a literal one."""
    parts = re.findall(r"\[(.)\]|(.)", text, re.DOTALL)
    return re.compile(
        "".join(re.escape(literal) if literal else _WILDCARDS.get(other, re.escape(other)) for literal, other in parts),
        re.DOTALL,
    )

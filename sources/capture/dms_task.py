"""The replication task in AWS, compared by `ragstream check` with the one that `ragstream capture` renders; never by a job."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from schemas.errors import UnavailableError
from sources.capture.dms import DmsCaptureConfig, task_identifier
from sources.capture.target import Table
from transforms.context import BEFORE_IMAGE

_RUNNING = {"running", "starting", "modifying"}
_WILDCARDS = {"%": ".*", "_": "."}


def region_of(config: DmsCaptureConfig) -> str | None:
    """The Region of the replication instance; None where the configuration leaves its ARN open."""
    region = config.replication_instance_arn.split(":")[3:4]
    return region[0] if region and region[0] not in {"", "REGION"} else None


def described_task(config: DmsCaptureConfig, pipeline: str, client: Any) -> dict[str, Any] | None:
    """The task as DescribeReplicationTasks describes it, None where there is none.

    `client` is boto3's for `dms`. Raises UnavailableError, without AWS's message, when it does not answer or refuses.
    """
    filters = [{"Name": "replication-task-id", "Values": [task_identifier(config, pipeline)]}]
    right = "dms:DescribeReplicationTasks"
    return _described(client.describe_replication_tasks, filters, "ReplicationTasks", right, "its tables")


def described_target(task: Mapping[str, Any], client: Any) -> dict[str, Any] | None:
    """The target endpoint of a task as DescribeEndpoints describes it, None where there is none. Raises UnavailableError."""
    filters = [{"Name": "endpoint-arn", "Values": [task["TargetEndpointArn"]]}]
    return _described(client.describe_endpoints, filters, "Endpoints", "dms:DescribeEndpoints", "its target's settings")


def _described(
    describe: Callable[..., Mapping[str, Any]], filters: list[dict[str, Any]], member: str, right: str, compared: str
) -> dict[str, Any] | None:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return next(iter(describe(Filters=filters)[member]), None)
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundFault":
            return None
        reason = error.response["Error"]["Code"]
    except BotoCoreError as error:
        reason = type(error).__name__
    raise UnavailableError(
        f"DMS did not describe {filters[0]['Values'][0]} ({reason}), so {compared} were not compared",
        hint=f"Allow {right} to who runs `ragstream check`.",
    )


def target_differences(endpoint: Mapping[str, Any], rendered: Mapping[str, Any]) -> Iterator[str]:
    """Where a target endpoint differs from the rendered one, as far as order, keys or values depend on it."""
    for member in ("KinesisSettings", "KafkaSettings"):
        expected, settings = rendered.get(member, {}), endpoint.get(member) or {}
        for name in filter(expected.__contains__, _NEEDED):
            if bool(settings.get(name)) != expected[name]:
                yield f"{name} of its target is {'on' if settings.get(name) else 'off'}"
        if settings.get("NoHexPrefix"):
            yield "NoHexPrefix of its target is on: bytes are known in columns that are declared `bytes` alone"


_NEEDED = (
    "IncludeTransactionDetails", "IncludeNullAndEmpty", "UseLargeIntegerValue", "IncludeTableAlterOperations",
    "IncludeControlDetails",
)  # fmt: skip


def task_differences(
    task: Mapping[str, Any], rendered: Mapping[str, Any], tables: Sequence[Table], before_image: str = BEFORE_IMAGE
) -> Iterator[str]:
    """Where a task differs from the rendered one, as far as tables or values depend on it.

    A `*` in a table's name stands for any text. `before_image` is where the source's records are read for old values.
    """
    rules = json.loads(task.get("TableMappings") or "{}").get("rules", [])
    missed = [".".join(table) for table in tables if not _selects(rules, table)]
    if missed:
        yield f"its table mappings do not select {', '.join(missed)}"
    if "cdc" not in str(task.get("MigrationType", "")):
        yield "its migration type has no ongoing changes (cdc)"
    settings = json.loads(task.get("ReplicationTaskSettings") or "{}")
    yield from _before_image(settings.get("BeforeImageSettings") or {}, before_image, rules)
    metadata = settings.get("TargetMetadata") or {}
    limit = json.loads(rendered["ReplicationTaskSettings"])["TargetMetadata"]["LobMaxSize"]
    if metadata.get("BatchApplyEnabled"):
        yield "BatchApplyEnabled is on: changes may be lost on a stream"
    if metadata.get("LobMaxSize", limit) != limit:
        yield f"LobMaxSize is {metadata['LobMaxSize']}, not {limit} (`max_lob_kb`): values that were cut are not counted"


def _before_image(settings: Mapping[str, Any], name: str, rules: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    definitions = [
        rule.get("before-image-def") or {} for rule in rules if rule.get("rule-action") == "add-before-image-columns"
    ]
    added = {f"{d.get('column-prefix') or 'BI_'}*{d.get('column-suffix') or ''}" for d in definitions}
    if other := sorted(added - {name}):
        yield (
            f"a rule add-before-image-columns makes {', '.join(other)}, and `before_image` of the source is {name}:"
            " old values become columns of the row, without the rules of `columns`"
        )
    elif "*" in name:
        if not added:
            yield f"no rule add-before-image-columns makes {name} (`before_image`): the old key's row stays when a key changes"
    elif not settings.get("EnableBeforeImage"):
        yield "BeforeImageSettings is off: the old key's row stays when a key changes"
    elif settings.get("FieldName") != name:
        yield f"FieldName of BeforeImageSettings is {settings.get('FieldName')}, and `before_image` of the source is {name}"


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

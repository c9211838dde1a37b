"""The DMS endpoints and task that capture a pipeline's tables, with the settings its correctness needs. Pure.

What is rendered has the shape of the CreateEndpoint and CreateReplicationTask requests (botocore's dms model).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from sources.capture.part import CapturePart
from sources.capture.target import WITHHELD, Table, database_at, literal
from transforms.context import BEFORE_IMAGE

type Parts = Mapping[Table, Sequence[Table]]
"""Tables, and the names of the partitions of those that have some."""


class DmsCaptureConfig(CapturePart):
    """AWS Database Migration Service into Kinesis."""

    type: Literal["dms"]
    database: Literal["postgresql"] = "postgresql"
    """The source's kind."""
    source: str | None = None
    """Name of the source this capture feeds, when the pipeline has several."""
    engine: Literal["postgres", "aurora-postgresql"] = "postgres"
    """DMS's name of the engine."""
    secret_id: str | None = None
    """Secrets Manager secret that holds the source's user and password; they are written into the endpoint otherwise."""
    secret_access_role_arn: str | None = None
    """Role by which DMS reads that secret."""
    stream_arn: str = "arn:aws:kinesis:REGION:ACCOUNT:stream/NAME"
    """The Kinesis stream to write to."""
    service_access_role_arn: str = "arn:aws:iam::ACCOUNT:role/NAME"
    """Role by which DMS writes to the stream."""
    replication_instance_arn: str = "arn:aws:dms:REGION:ACCOUNT:rep:NAME"
    """The replication instance that runs the task."""
    task: str | None = None
    """Name of the task; the pipeline's when absent."""
    slot: str | None = Field(default=None, pattern=r"^[a-z0-9_]{1,63}$")
    """An existing replication slot; DMS makes its own when absent."""
    partition_key: Literal["primary-key", "schema-table"] = "primary-key"
    """What puts a change on a shard. DMS's own default for changes is schema-table: all of a table on one shard."""
    include_null_and_empty: bool = True
    """Send NULL and empty columns. Without it a column set to NULL cannot be told from one that did not change."""
    replica_identity: Literal["full", "default"] = "full"
    """What the log holds of a row's old state. With `default` an update leaves out a large column that did not change, and
    nothing AWS documents says whether DMS then sends NULL for it; `full` writes every column, at the cost of a larger log."""
    max_lob_kb: int = Field(default=10_240, ge=1)
    """Largest text, JSON or binary value, in KB; a larger one stops the task instead of being cut. A record holds one row:
    raise the stream's MaxRecordSizeInKiB to fit."""


def dms_endpoints(config: DmsCaptureConfig, pipeline: str, *, reveal: bool = False) -> dict[str, dict[str, Any]]:
    """Render the source's and the target's CreateEndpoint requests; the password is withheld unless `reveal`."""
    database = database_at(config.dsn.get_secret_value())
    name = task_identifier(config, pipeline)
    source: dict[str, Any] = {
        "DatabaseName": database.name,
        "PluginName": "test-decoding",
        # An idle database still lets go of its log.
        "HeartbeatEnable": True,
        "HeartbeatFrequency": 1,
        "CaptureDdls": True,
        # By default a boolean becomes the text "true".
        "MapBooleanAsBoolean": True,
        # By default a text above the limit is cut, without a word in the record.
        "FailTasksOnLobTruncation": True,
    }
    if config.slot:
        source["SlotName"] = config.slot
    if config.secret_id:
        source |= {"SecretsManagerSecretId": config.secret_id}
        source |= {"SecretsManagerAccessRoleArn": config.secret_access_role_arn or "arn:aws:iam::ACCOUNT:role/NAME"}
    else:
        password = database.password if reveal else WITHHELD
        source |= {"ServerName": database.host, "Port": database.port, "Username": database.user, "Password": password}
    return {
        "source": {
            "EndpointIdentifier": f"{name}-source",
            "EndpointType": "source",
            "EngineName": config.engine,
            "PostgreSQLSettings": source,
        },
        "target": {
            "EndpointIdentifier": f"{name}-target",
            "EndpointType": "target",
            "EngineName": "kinesis",
            "KinesisSettings": _kinesis_settings(config),
        },
    }


def _kinesis_settings(config: DmsCaptureConfig) -> dict[str, Any]:
    """The settings that a row's order and types depend on; all are off by default."""
    return {
        "StreamArn": config.stream_arn,
        "ServiceAccessRoleArn": config.service_access_role_arn,
        "MessageFormat": "json-unformatted",
        "IncludeTransactionDetails": True,
        "IncludePartitionValue": True,
        "PartitionIncludeSchemaTable": True,
        "IncludeTableAlterOperations": True,
        "IncludeControlDetails": True,
        "IncludeNullAndEmpty": config.include_null_and_empty,
        "UseLargeIntegerValue": True,
    }


def dms_task(config: DmsCaptureConfig, pipeline: str, tables: Parts) -> dict[str, str]:
    """Render the CreateReplicationTask request; the endpoints' ARNs are known once they are created."""
    return {
        "ReplicationTaskIdentifier": task_identifier(config, pipeline),
        "SourceEndpointArn": "SOURCE-ENDPOINT-ARN",
        "TargetEndpointArn": "TARGET-ENDPOINT-ARN",
        "ReplicationInstanceArn": config.replication_instance_arn,
        "MigrationType": "full-load-and-cdc",
        "TableMappings": json.dumps(dms_table_mappings(config, tables)),
        "ReplicationTaskSettings": json.dumps(dms_task_settings(config)),
    }


def dms_task_settings(config: DmsCaptureConfig) -> dict[str, Any]:
    """Render the task's settings.

    The before-image has the old key of a key change. BatchApplyEnabled may lose changes on a stream. A row that cannot be
    sent stops the task; by default it is logged and left out.
    """
    stop = "STOP_TASK"
    return {
        "TargetMetadata": {
            "SupportLobs": True,
            "FullLobMode": False,
            "LimitedSizeLobMode": True,
            "LobMaxSize": config.max_lob_kb,
            "BatchApplyEnabled": False,
        },
        "FullLoadSettings": {"TargetTablePrepMode": "DO_NOTHING", "MaxFullLoadSubTasks": 8},
        "BeforeImageSettings": {"EnableBeforeImage": True, "FieldName": BEFORE_IMAGE, "ColumnFilter": "pk-only"},
        "ChangeProcessingDdlHandlingPolicy": {
            "HandleSourceTableAltered": True,
            "HandleSourceTableDropped": True,
            "HandleSourceTableTruncated": True,
        },
        "ErrorBehavior": {
            "DataErrorPolicy": stop,
            "DataTruncationErrorPolicy": stop,
            "TableErrorPolicy": stop,
            "ApplyErrorInsertPolicy": stop,
            "ApplyErrorUpdatePolicy": stop,
            "ApplyErrorDeletePolicy": stop,
            "RecoverableErrorCount": -1,
        },
        "Logging": {"EnableLogging": True},
    }


def dms_table_mappings(config: DmsCaptureConfig, tables: Parts) -> dict[str, list[dict[str, Any]]]:
    """Render the rules that select the tables and choose the partition key.

    Of a partitioned table its partitions are selected: DMS reads the log by them, and the table itself has no changes.
    """
    rules: list[dict[str, Any]] = []
    for table in (part for whole, parts in tables.items() for part in parts or [whole]):
        where = {"schema-name": _literal(table.schema), "table-name": _literal(table.name)}
        select = {"rule-type": "selection", "rule-action": "include", "object-locator": where}
        mapping = {"rule-type": "object-mapping", "rule-action": "map-record-to-record", "object-locator": where}
        mapping["mapping-parameters"] = {"partition-key-type": "primary-key"}
        rules += [select, *([mapping] if config.partition_key == "primary-key" else [])]
    numbered = enumerate(rules, 1)
    return {"rules": [{"rule-id": str(n), "rule-name": f"{rule['rule-type']}-{n}", **rule} for n, rule in numbered]}


def source_sql(config: DmsCaptureConfig, tables: Parts, *, replica_identity: bool = True) -> list[str]:
    """Write the statements that the source's owner runs once before the task starts.

    DMS has no record for TRUNCATE on a stream. A trigger deletes the rows just before, in the same transaction, so that DMS
    and any other reader of the log get deletes.
    """
    statements = ["CREATE SCHEMA IF NOT EXISTS ragstream", _DELETE_BEFORE_TRUNCATE]
    for table, parts in tables.items():
        trigger = f"CREATE OR REPLACE TRIGGER ragstream_delete_before_truncate BEFORE TRUNCATE ON {table.quoted}"
        statements.append(f"{trigger} FOR EACH STATEMENT EXECUTE FUNCTION ragstream.delete_before_truncate()")
        if replica_identity:
            identity = config.replica_identity.upper()
            of_parts = _PARTS_IDENTITY.replace("<TABLE>", literal(table.quoted)).replace("<IDENTITY>", identity)
            statements.append(of_parts if parts else f"ALTER TABLE {table.quoted} REPLICA IDENTITY {identity}")
    return statements


_PARTS_IDENTITY = """\
DO $ragstream$
DECLARE part regclass;
BEGIN
    FOR part IN SELECT relid FROM pg_partition_tree(<TABLE>::regclass) WHERE isleaf LOOP
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY <IDENTITY>', part);
    END LOOP;
END $ragstream$"""
_DELETE_BEFORE_TRUNCATE = """\
CREATE OR REPLACE FUNCTION ragstream.delete_before_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_class WHERE oid = TG_RELID AND relkind = 'p') THEN
        EXECUTE format('DELETE FROM %I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME);
    ELSE
        EXECUTE format('DELETE FROM ONLY %I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME);
    END IF;
    RETURN NULL;
END $$"""


def task_identifier(config: DmsCaptureConfig, pipeline: str) -> str:
    """Name the task: letters, digits and single hyphens, beginning with a letter."""
    return re.sub(r"[^A-Za-z0-9]+", "-", f"ragstream-{config.task or pipeline}").strip("-")[:200]


def _literal(name: str) -> str:
    """Write a name as a mapping rule's pattern: % and _ are its wildcards, brackets make them literal; our own is *."""
    return re.sub(r"([%_\[])", r"[\1]", name).replace("*", "%")

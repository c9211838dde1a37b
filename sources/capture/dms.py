"""The DMS endpoints and task that capture a pipeline's tables, with the settings its correctness needs. Pure.

What is rendered has the shape of the CreateEndpoint and CreateReplicationTask requests (botocore's dms model).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from sources.capture.dms_engines import DMS_ENGINES, DmsEngine
from sources.capture.dms_target import DmsKafkaConfig, target_settings
from sources.capture.engines.protocol import Statements
from sources.capture.part import CapturePart
from sources.capture.target import WITHHELD, Table
from transforms.context import BEFORE_IMAGE

type Parts = Mapping[Table, Sequence[Table]]
"""Tables, and the names of the partitions of those that have some."""


class DmsCaptureConfig(CapturePart):
    """AWS Database Migration Service into Kinesis or Kafka."""

    type: Literal["dms"]
    database: Literal["postgresql", "mysql", "mariadb", "sqlserver", "oracle"] = "postgresql"
    """The source's kind."""
    source: str | None = None
    """Name of the source this capture feeds, when the pipeline has several."""
    engine: str | None = None
    """DMS's name of the engine, where it is not that of the kind: `aurora-postgresql`, `aurora`."""
    secret_id: str | None = None
    """Secrets Manager secret that holds the source's user and password; they are written into the endpoint otherwise."""
    secret_access_role_arn: str | None = None
    """Role by which DMS reads that secret."""
    certificate_arn: str | None = None
    """Certificate in DMS by which the source is verified. Without one DMS encrypts PostgreSQL and SQL Server, and no other."""
    stream_arn: str = "arn:aws:kinesis:REGION:ACCOUNT:stream/NAME"
    """The Kinesis stream to write to."""
    service_access_role_arn: str = "arn:aws:iam::ACCOUNT:role/NAME"
    """Role by which DMS writes to the stream."""
    kafka: DmsKafkaConfig | None = None
    """A topic to write to in place of a Kinesis stream."""
    replication_instance_arn: str = "arn:aws:dms:REGION:ACCOUNT:rep:NAME"
    """The replication instance that runs the task."""
    task: str | None = None
    """Name of the task; the pipeline's when absent."""
    slot: str | None = Field(default=None, pattern=r"^[a-z0-9_]{1,63}$")
    """PostgreSQL: an existing replication slot; DMS makes its own when absent."""
    transaction_details: bool | None = None
    """Send positions and commit times. Left out: where the engine's positions have a known form (docs/engines.md)."""
    partition_key: Literal["primary-key", "schema-table"] | None = None
    """What puts a change on a shard. DMS's own default for changes is schema-table: all of a table on one shard. Left out:
    primary-key, or schema-table where no position is sent, so that the stream has one order for both keys of a key change."""
    include_null_and_empty: bool = True
    """Send NULL and empty columns. Without it a column set to NULL cannot be told from one that did not change."""
    replica_identity: Literal["full", "default"] = "full"
    """What PostgreSQL's log holds of a row's old state. With `default` an update leaves out a large column that did not change,
    and nothing AWS documents says whether DMS then sends NULL for it; `full` writes every column, at the cost of a larger log."""
    max_lob_kb: int = Field(default=10_240, ge=1)
    """Largest text, JSON or binary value, in KB. PostgreSQL and Oracle stop the task at a larger one; the others cut it, and
    `status` counts values of exactly that size. A record holds one row: raise the stream's MaxRecordSizeInKiB to fit."""

    @model_validator(mode="after")
    def _belongs_to_its_kind(self) -> DmsCaptureConfig:
        names = self.dms_engine.names
        if self.engine not in {None, *names}:
            raise ValueError(f"engine of {self.database} is one of {', '.join(names)}")
        return self

    @property
    def dms_engine(self) -> DmsEngine:
        """The kind of database as DMS captures it."""
        return DMS_ENGINES[self.database]

    @property
    def has_details(self) -> bool:
        """Whether records have their place in the source's log."""
        return self.dms_engine.has_position if self.transaction_details is None else self.transaction_details

    @property
    def by_primary_key(self) -> bool:
        """Whether changes go to shards by their key, and not by their table."""
        return (self.partition_key or ("primary-key" if self.has_details else "schema-table")) == "primary-key"

    def weaknesses(self) -> Iterator[str]:
        """Also brokers that DMS would reach without encryption."""
        yield from super().weaknesses()
        yield from self.kafka.weaknesses() if self.kafka else ()


def dms_endpoints(config: DmsCaptureConfig, pipeline: str, *, reveal: bool = False) -> dict[str, dict[str, Any]]:
    """Render the source's and the target's CreateEndpoint requests; passwords are withheld unless `reveal`."""
    database, engine = config.address, config.dms_engine
    name, settings = task_identifier(config, pipeline), dict(engine.settings(config, database))
    if config.secret_id:
        settings |= {"SecretsManagerSecretId": config.secret_id}
        settings |= {"SecretsManagerAccessRoleArn": config.secret_access_role_arn or "arn:aws:iam::ACCOUNT:role/NAME"}
    else:
        settings |= {"ServerName": database.host, "Port": database.port, "Username": database.user}
        settings |= {"Password": database.password if reveal else WITHHELD}
    source = {
        "EndpointIdentifier": f"{name}-source",
        "EndpointType": "source",
        "EngineName": config.engine or engine.names[0],
        "SslMode": engine.ssl_modes[bool(config.certificate_arn)],
        engine.member: settings,
    }
    if config.certificate_arn:
        source["CertificateArn"] = config.certificate_arn
    if engine.attributes:
        source["ExtraConnectionAttributes"] = engine.attributes
    target = {"EndpointIdentifier": f"{name}-target", "EndpointType": "target"}
    return {"source": source, "target": target | target_settings(config, reveal=reveal)}


def dms_statements(config: DmsCaptureConfig, tables: Parts) -> Statements:
    """What the source's owner and administrator run before the task starts, and queries where no client is here."""
    return config.dms_engine.prepare(config, config.address, tables)


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
        rules += [select, *([mapping] if config.by_primary_key else [])]
    return {
        "rules": [
            {"rule-id": str(number), "rule-name": f"{rule['rule-type']}-{number}", **rule}
            for number, rule in enumerate(rules, 1)
        ]
    }


def task_identifier(config: DmsCaptureConfig, pipeline: str) -> str:
    """Name the task: letters, digits and single hyphens, beginning with a letter."""
    return re.sub(r"[^A-Za-z0-9]+", "-", f"ragstream-{config.task or pipeline}").strip("-")[:200]


def _literal(name: str) -> str:
    """Write a name as a mapping rule's pattern: its `*` becomes %, and brackets make %, _ and [ literal."""
    return re.sub(r"([%_\[])", r"[\1]", name).replace("*", "%")

"""The DMS capture of each engine, into Kinesis and Kafka: requests of the shapes of its API, and what people run before."""

from __future__ import annotations

import json
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from pydantic import ValidationError

from sources.capture.dms import DmsCaptureConfig
from sources.capture.dms_engines import DMS_ENGINES
from sources.capture.rendering import as_json, render

DSN = {
    "postgresql": "postgresql://u:s3cr%40t@db/shop", "mysql": "mysql://u:s3cr%40t@db", "mariadb": "mariadb://u:s3cr%40t@db/shop",
    "sqlserver": "sqlserver://u:s3cr%40t@db/shop", "oracle": "oracle://u:s3cr%40t@db/SHOP?protocol=tcps",
}  # fmt: skip
TABLES = {"sqlserver": ["dbo.tickets"], "oracle": ["HR.TICKETS"], "postgresql": ["public.tickets"]}
KAFKA = {"broker": "b-1.msk:9096", "topic": "desk", "sasl_username": "dms", "sasl_password": "s3cr@t"}


def rendered(database: str, *, reveal: bool = False, **members: Any) -> dict[str, Any]:
    config = DmsCaptureConfig.model_validate({"type": "dms", "database": database, "dsn": DSN[database]} | members)
    return render(config, "desk", TABLES.get(database, ["shop.tickets"]), reveal=reveal)


@pytest.mark.parametrize(
    "members", [{}, {"kafka": KAFKA, "certificate_arn": "arn:aws:dms:r:1:cert:x"}], ids=["kinesis", "kafka"]
)
@pytest.mark.parametrize("database", DMS_ENGINES)
def test_requests_of_every_engine_have_the_shapes_of_its_api(database: str, members: dict[str, Any]) -> None:
    capture = rendered(database, reveal=True, **members)
    model: Any = botocore.session.get_session().get_service_model("dms")
    bodies = {"CreateEndpoint": ["source_endpoint", "target_endpoint"], "CreateReplicationTask": ["replication_task"]}
    for operation, names in bodies.items():
        shape = model.operation_model(operation).input_shape
        assert shape is not None
        for name in names:
            report = ParamValidator().validate(capture[name], shape)
            assert not report.has_errors(), report.generate_report()
            assert capture[name].keys() <= shape.members.keys()
    source, target = capture["source_endpoint"], capture["target_endpoint"]
    documented = model.shape_for("CreateEndpointMessage").members["EngineName"].documentation
    assert all(f'"{endpoint["EngineName"]}"' in documented for endpoint in (source, target))
    assert source["SslMode"] in model.shape_for("DmsSslModeValue").enum
    settings = target.get("KafkaSettings") or target["KinesisSettings"]
    if protocol := settings.get("SecurityProtocol"):
        assert protocol in model.shape_for("KafkaSecurityProtocol").enum
        assert settings["SaslMechanism"] in model.shape_for("KafkaSaslMechanism").enum
    assert "s3cr@t" in as_json(capture)
    assert "s3cr@t" not in as_json(rendered(database, **members))


@pytest.mark.parametrize("database", DMS_ENGINES)
def test_positions_are_sent_where_their_form_is_known(database: str) -> None:
    capture = rendered(database)
    known = database in {"postgresql", "mysql", "mariadb"}
    assert capture["target_endpoint"]["KinesisSettings"]["IncludeTransactionDetails"] is known
    kinds = {rule["rule-type"] for rule in json.loads(capture["replication_task"]["TableMappings"])["rules"]}
    assert ("object-mapping" in kinds) is known, "else one shard has all of a table"
    asked = rendered(database, transaction_details=not known, partition_key="primary-key")
    assert asked["target_endpoint"]["KinesisSettings"]["IncludeTransactionDetails"] is not known
    assert "object-mapping" in asked["replication_task"]["TableMappings"]


def test_what_the_engines_need_before_is_printed() -> None:
    oracle, sqlserver, mysql = (rendered(name) for name in ("oracle", "sqlserver", "mysql"))
    assert oracle["source_sql"] == ['ALTER TABLE "HR"."TICKETS" ADD SUPPLEMENTAL LOG DATA (ALL) COLUMNS']
    assert any("ARCHIVELOG" in query for query in oracle["check_sql"])
    assert oracle["source_endpoint"]["OracleSettings"]["FailTasksOnLobTruncation"] is True
    assert sqlserver["source_endpoint"]["ExtraConnectionAttributes"] == "SetUpMsCdcForTables=true"
    assert any("sp_cdc_enable_table" in statement for statement in sqlserver["administrator_sql"])
    assert any("recovery model SIMPLE" in query for query in sqlserver["check_sql"])
    assert mysql["administrator_sql"][0] == "GRANT REPLICATION CLIENT, REPLICATION SLAVE ON *.* TO 'u'@'%'"
    assert "DatabaseName" not in mysql["source_endpoint"]["MySQLSettings"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"engine": "aurora-postgresql", "database": "mysql", "dsn": DSN["mysql"]},
            "engine of mysql is one of mysql, aurora",
        ),
        ({"kafka": KAFKA | {"sasl_password": None}}, "sasl-ssl needs sasl_password"),
        ({"kafka": {"broker": "b:9092", "topic": "t", "security_protocol": "plaintext"}}, "kafka.security_protocol"),
    ],
)
def test_a_capture_that_cannot_be_is_refused(members: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DmsCaptureConfig.model_validate({"type": "dms", "dsn": DSN["postgresql"]} | members)

"""The converters of a source's registry, and the keys of records, as `ragstream capture` renders and `check` compares them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from glue_jobs.config.pipeline import PipelineConfig
from glue_jobs.operations import capture_checks
from schemas.errors import ConfigurationError
from schemas.tables import TableConfig
from sources.capture.binlog_findings import findings as binlog_findings
from sources.capture.debezium import DebeziumCaptureConfig
from sources.capture.findings import connector_differences, findings
from sources.capture.names import KnownTable, adjusted, record_keys, recorded
from sources.capture.rendering import Details, as_json, render
from sources.registry.config import ConfluentRegistryConfig, RegistryConfig
from tests.unit.test_capture_check import RIGHT, TABLE, TEXT
from tests.unit.test_capture_engines import ITEMS, NOTE, SERVER, config

DSN = "postgresql://u:p@db/shop"
GLUE: dict[str, Any] = {"type": "glue", "name": "desk", "region": "eu-central-1"}
CONFLUENT: dict[str, Any] = {
    "type": "confluent", "url": "https://registry.example", "username": "me", "password": "s3cr@t",
}  # fmt: skip
VALID_NAMES = {"schema.name.adjustment.mode": "avro", "field.name.adjustment.mode": "avro"}
AWS = "com.amazonaws.services.schemaregistry.kafkaconnect"


def registry_of(members: dict[str, Any]) -> RegistryConfig:
    return TypeAdapter[RegistryConfig](RegistryConfig).validate_python(members)


def settings(registry: dict[str, Any] | None, *, reveal: bool = False, **members: str | None) -> dict[str, str]:
    capture = DebeziumCaptureConfig.model_validate({"type": "debezium", "dsn": DSN, **members})
    details = Details(registry=registry_of(registry) if registry else None)
    rendered = render(capture, "desk", ["public.t"], details=details, reveal=reveal)
    return {
        name: v for name, v in rendered["connector"]["config"].items() if "converter" in name or "adjustment" in name
    }


def converters(rendered: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in rendered.items() if not name.startswith("header.")}


@pytest.mark.parametrize(
    ("kind", "name", "own", "names"),
    [
        (None, f"{AWS}.AWSKafkaAvroConverter", {"avroRecordType": "GENERIC_RECORD"}, VALID_NAMES),
        ("avro", f"{AWS}.AWSKafkaAvroConverter", {"avroRecordType": "GENERIC_RECORD"}, VALID_NAMES),
        ("json_schema", f"{AWS}.jsonschema.JsonSchemaConverter", {"dataFormat": "JSON"}, {}),
    ],
)
def test_glues_converters_register_schemas_under_names_of_their_own(
    kind: str | None, name: str, own: dict[str, str], names: dict[str, str]
) -> None:
    both = {
        "registry.name": "desk", "region": "eu-central-1", "schemaAutoRegistrationEnabled": "true",
        "compatibility": "NONE", **own,
    }  # fmt: skip
    assert converters(settings(GLUE, converter=kind)) == {
        "key.converter": name, **{f"key.converter.{n}": v for n, v in both.items()}, "key.converter.schemaName": "desk-key",
        "value.converter": name, **{f"value.converter.{n}": v for n, v in both.items()}, **names,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name", "names"),
    [
        ("avro", "io.confluent.connect.avro.AvroConverter", VALID_NAMES),
        ("json_schema", "io.confluent.connect.json.JsonSchemaConverter", {}),
    ],
)
def test_confluents_converters_keep_nulls_and_sign_in(kind: str, name: str, names: dict[str, str]) -> None:
    both = {
        "schema.registry.url": "https://registry.example", "ignore.default.for.nullables": "true",
        "basic.auth.credentials.source": "USER_INFO", "basic.auth.user.info": "me:s3cr@t",
    }  # fmt: skip
    assert converters(settings(CONFLUENT, reveal=True, converter=kind)) == {
        f"{part}.converter{n}": v
        for part in ("key", "value")
        for n, v in {"": name, **{f".{n}": v for n, v in both.items()}}.items()
    } | names  # fmt: skip


def test_a_pipelines_capture_takes_the_registry_of_its_source() -> None:
    source = {"type": "kafka", "envelope": "debezium", "bootstrap_servers": "127.0.0.1:1", "topics": ["t"]}
    pipeline = PipelineConfig.model_validate(
        {
            "name": "p", "source": [source | {"name": "a"}, source | {"name": "b", "registry": GLUE}],
            "capture": [{"type": "debezium", "dsn": DSN, "source": name, "allow_plaintext": True} for name in ("a", "b")],
            "tables": [{"table": "public.t", "keys": ["id"], "source": "b"}, {"table": "public.u", "keys": ["id"]}],
            "lake": {"path": "lake"}, "checkpoint": "checkpoint",
        }
    )  # fmt: skip
    known = {"public.t": KnownTable(("no", "id"), ("no",))}
    plain, glue = (
        capture_checks.rendered(pipeline, capture, known)["connector"]["config"] for capture in pipeline.capture
    )
    assert plain["value.converter"] == "org.apache.kafka.connect.json.JsonConverter"
    assert "message.key.columns" not in plain
    assert glue["value.converter"] == f"{AWS}.AWSKafkaAvroConverter"
    assert glue["message.key.columns"] == r"public\.t:id"


def test_a_registrys_password_is_withheld_or_the_workers_reference() -> None:
    assert "s3cr" not in as_json(settings(CONFLUENT))
    reference = settings(CONFLUENT, reveal=True, registry_password_reference="${secretsManager:sr:password}")
    assert reference["value.converter.basic.auth.user.info"] == "me:${secretsManager:sr:password}"


def test_a_workers_own_converters_are_left_to_it() -> None:
    assert converters(settings(CONFLUENT, converter="worker")) == {}
    assert converters(settings(None, converter="worker")) == {}


def test_a_converter_of_a_registry_needs_one() -> None:
    assert converters(settings(None))["value.converter"] == "org.apache.kafka.connect.json.JsonConverter"
    with pytest.raises(ConfigurationError, match="needs a schema registry"):
        settings(None, converter="json_schema")
    with pytest.raises(ValidationError):
        ConfluentRegistryConfig(type="confluent", url="https://me:s3cr@registry.example")


@pytest.mark.parametrize(
    ("column", "field"), [("first name", "first_name"), ("2nd", "_2nd"), ("größe", "gr__e"), ("a_1", "a_1")]
)
def test_a_columns_name_is_adjusted_as_debezium_does(column: str, field: str) -> None:
    assert adjusted(column) == field


def test_keys_that_are_no_primary_key_become_the_records_keys() -> None:
    tables = [
        TableConfig(table="public.docs", keys=("tenant", "code")), TableConfig(table="public.t", keys=("id",)),
        TableConfig(table="public.gone", keys=("id",)), TableConfig(table="public.odd", keys=("no_1", "b")),
    ]  # fmt: skip
    known = {
        "public.docs": KnownTable(("id", "code", "tenant"), ("id",)), "public.t": KnownTable(("id", "body"), ("id",)),
        "public.odd": KnownTable(("no:1", "b"), ()),
    }  # fmt: skip
    keys = record_keys(recorded(tables, known), known)
    assert keys == {"public.docs": ("tenant", "code"), "public.odd": ("no:1", "b")}
    capture = DebeziumCaptureConfig.model_validate({"type": "debezium", "dsn": DSN})
    rendered = render(capture, "desk", [table.table for table in tables], details=Details(keys=keys))
    text = rendered["connector"]["config"]["message.key.columns"]
    assert text == r"public\.docs:tenant,code;public\.odd:no\x3a1,b"
    assert record_keys([TableConfig(table="public.t", keys=("no",), renamed={"id": "no"})], known) == {}
    assert record_keys([TableConfig(table="public.t", keys=("other",))], known) == {}


def test_check_compares_the_registrys_converters_and_the_records_keys() -> None:
    capture = DebeziumCaptureConfig.model_validate({"type": "debezium", "dsn": DSN})
    details = Details(registry=registry_of(CONFLUENT), keys={"public.t": ("code",)})
    wanted = render(capture, "desk", ["public.t"], details=details)["connector"]["config"]
    applied = render(capture, "desk", ["public.t"], details=details, reveal=True)["connector"]["config"]
    assert connector_differences(applied, wanted, ["public.t"]) == []
    other = applied | {"value.converter.schema.registry.url": "http://other", "field.name.adjustment.mode": "none"}
    del other["message.key.columns"], other["value.converter.ignore.default.for.nullables"]
    assert connector_differences(other, wanted, ["public.t"]) == [
        "field.name.adjustment.mode is none, not avro",
        r"message.key.columns is not set, not public\.t:code",
        "value.converter.ignore.default.for.nullables is not set, not true",
        "value.converter.schema.registry.url is http://other, not https://registry.example",
    ]


def test_nulls_that_glues_converters_lose_are_wrong_with_what_mends_them() -> None:
    table = replace(TABLE, columns=(*TABLE.columns, replace(TEXT, name="State", defaulted=True)))
    source, tables = replace(RIGHT, tables={"public.t": table}), [TableConfig(table="public.t", keys=("id",))]
    capture = DebeziumCaptureConfig.model_validate({"type": "debezium", "dsn": DSN})
    assert findings(capture, "desk", tables, source).wrong == []
    (wrong,) = findings(capture, "desk", tables, source, nulls_lost=True).wrong
    assert wrong.endswith('Run: ALTER TABLE "public"."t" ALTER COLUMN "State" SET DEFAULT NULL')
    items = replace(ITEMS, columns=(*ITEMS.columns, replace(NOTE, name="state", defaulted=True)))
    server, tables = replace(SERVER, tables={"shop.items": items}), [TableConfig(table="shop.items", keys=("id",))]
    assert binlog_findings(config("mysql"), tables, server).wrong == []
    (wrong,) = binlog_findings(config("mysql"), tables, server, nulls_lost=True).wrong
    assert wrong.endswith("Run: ALTER TABLE `shop`.`items` ALTER COLUMN `state` SET DEFAULT NULL")


def test_keys_of_a_unique_index_are_right_where_debezium_captures() -> None:
    items = replace(ITEMS, keys=("no",), unique=frozenset({frozenset({"no"}), frozenset({"id"})}))
    server, tables = replace(SERVER, tables={"shop.items": items}), [TableConfig(table="shop.items", keys=("id",))]
    assert binlog_findings(config("mysql"), tables, server).wrong == []

"""Schemas looked up over the wire: AWS Glue's registry (moto's endpoint) and Confluent's REST API (our stand-in)."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from pydantic import SecretStr
from pyspark.sql import SparkSession

from indexing.work_unit import decoded
from lake.history.current import fold_table
from lake.landing.batch import Landing
from lake.landing.replay import Choice, land_again, open_rejects
from lake.layout import LakeLayout
from lake.registered_schemas import LandedSchemas
from local_stack.faults.tcp import FaultProxy
from local_stack.models.service import ModelService
from local_stack.servers.aws import REGION, Moto
from local_stack.standins.schema_registry.server import PASSWORD, USERNAME, SchemaRegistry
from schemas.changes import Changes, Reject
from schemas.errors import ConfigurationError, UnavailableError
from schemas.records import Record
from sources.registry.config import ConfluentRegistryConfig, GlueRegistryConfig, RegistryConfig
from sources.registry.lookup import RegisteredSchemas, check, fetch
from tests.lake_fixtures import frame, transaction
from tests.recorded import CONTEXT, records
from tests.registered import Known, as_registered
from tests.servers import unique
from transforms.envelopes.decode import decode
from transforms.envelopes.registry import RegisteredSchema, RegistryKind

TABLES = [table for table in CONTEXT.tables if table.startswith("inv.") and table != "inv.edge"]


@dataclass
class Server:
    """A registry, reached through a proxy."""

    proxy: FaultProxy
    config: RegistryConfig
    register: Callable[[RegisteredSchema], str]

    @property
    def kind(self) -> RegistryKind:
        return self.config.type

    def dead(self) -> RegistryConfig:
        """The same registry at an address where nothing answers."""
        key = "endpoint_url" if self.kind == "glue" else "url"
        return self.config.model_copy(update={key: "http://127.0.0.1:9"})


@pytest.fixture
def glue_registry(glue: Moto, new_proxy: Callable[[int], FaultProxy]) -> Server:
    proxy, client, name = new_proxy(glue.port), glue.client("glue"), unique("registry")
    client.create_registry(RegistryName=name)

    def register(schema: RegisteredSchema) -> str:
        made = client.create_schema(
            RegistryId={"RegistryName": name}, SchemaName=unique("schema"), DataFormat=schema.format,
            Compatibility="NONE", SchemaDefinition=schema.definition,
        )  # fmt: skip
        return str(made["SchemaVersionId"])

    url = f"http://127.0.0.1:{proxy.port}"
    config = GlueRegistryConfig(
        type="glue", region=REGION, endpoint_url=url, access_key="local", secret_key=SecretStr("local")
    )
    return Server(proxy, config, register)


@pytest.fixture
def confluent_registry(schema_registry: SchemaRegistry, new_proxy: Callable[[int], FaultProxy]) -> Server:
    proxy = new_proxy(schema_registry.port)

    def register(schema: RegisteredSchema) -> str:
        body = {"schema": schema.definition, "schemaType": schema.format}
        return str(schema_registry.register(unique("subject"), body))

    url = f"http://127.0.0.1:{proxy.port}"
    config = ConfluentRegistryConfig(type="confluent", url=url, username=USERNAME, password=SecretStr(PASSWORD))
    return Server(proxy, config, register)


@pytest.fixture(params=["glue", "confluent"])
def registry(request: pytest.FixtureRequest) -> Iterator[Server]:
    server: Server = request.getfixturevalue(f"{request.param}_registry")
    yield server
    server.proxy.heal()


def remembering(register: Callable[[RegisteredSchema], str]) -> Callable[[RegisteredSchema], str]:
    """Registers each schema once, as a serializer does."""
    known: dict[RegisteredSchema, str] = {}
    return lambda schema: known.get(schema) or known.setdefault(schema, register(schema))


def framed_records(server: Server, name: str, form: str) -> list[Record]:
    register = remembering(server.register)
    return [as_registered(record, form, server.kind, register) for record in records(name)]


def rows(layout: LakeLayout, name: str) -> list[dict[str, Any]]:
    return DeltaTable(layout.path(name)).to_pyarrow_table().to_pylist()


def test_avro_lands_by_workers_and_the_lake_is_read_without_the_registry(
    registry: Server, spark: SparkSession, tmp_path: Path
) -> None:
    layouts = [LakeLayout(str(tmp_path / name)) for name in ("json", "avro")]
    kept = LandedSchemas(layouts[1].root, "kb")
    context = replace(CONTEXT, registry=RegisteredSchemas(registry.config, kept))
    Landing(layouts[0], "kb", CONTEXT).land(frame(spark, records("pg15_schemas")), transaction("q", 0))
    batch = framed_records(registry, "pg15_schemas", "AVRO")
    for _ in range(2):  # landed again, it lands once
        tally = Landing(layouts[1], "kb", context).land(frame(spark, batch), transaction("q", 0))
    assert tally.rejected.total() == 0
    named = [{(r["position"], r["_key"], r["_op"], r["_sequence"]) for r in rows(one, "changes")} for one in layouts]
    assert named[0] == named[1]
    assert {row["schema"] for row in rows(layouts[1], "registered_schemas")} == tally.registered != set()
    assert len(rows(layouts[1], "registered_schemas")) == len(tally.registered)
    lost = replace(CONTEXT, registry=RegisteredSchemas(registry.dead(), kept))
    for table in TABLES:
        expected = fold_table(layouts[0], table, {"kb": CONTEXT}).live()
        assert fold_table(layouts[1], table, {"kb": lost}).live().keys() == expected.keys()
    assert any(fold_table(layouts[1], table, {"kb": lost}).live() for table in TABLES)


@pytest.mark.parametrize("form", ["AVRO", "JSON"])
def test_a_work_unit_of_framed_records_is_that_of_plain_ones(registry: Server, form: str) -> None:
    context = pickle.loads(pickle.dumps(replace(CONTEXT, registry=RegisteredSchemas(registry.config))))  # noqa: S301 - as to a reader
    plain, framed = (
        decoded(batch, one, {})
        for batch, one in (
            (records("mariadb1011_schemas"), CONTEXT),
            (framed_records(registry, "mariadb1011_schemas", form), context),
        )
    )
    assert framed.counts == plain.counts
    assert framed.commits_us == plain.commits_us


def test_while_a_registry_is_away_known_schemas_are_read_and_others_wait(registry: Server) -> None:
    context = replace(CONTEXT, registry=RegisteredSchemas(registry.config))
    known, new = (next(iter(framed_records(registry, name, "AVRO"))) for name in ("pg15_schemas", "pg15_schemas_edge"))
    assert isinstance(decode(known, context), Changes)
    registry.proxy.refuse()
    assert isinstance(decode(known, context), Changes)
    with pytest.raises(UnavailableError, match="registry"):
        decode(new, context)
    with pytest.raises(UnavailableError):
        check(registry.config)
    registry.proxy.heal()
    assert isinstance(decode(new, context), Changes)


def test_an_id_that_does_not_exist_is_a_reject_until_it_does(
    registry: Server, spark: SparkSession, tmp_path: Path
) -> None:
    batch = framed_records(registry, "pg15_schemas", "AVRO")[:1]
    layout = LakeLayout(str(tmp_path / "lake"))
    other = replace(CONTEXT, registry=Known(registry.kind))
    assert Landing(layout, "kb", other).land(frame(spark, batch), transaction("q", 0)).rejected.total() == 1
    (reject,) = open_rejects(layout, Choice("decode", "REGISTRY_SCHEMA_MISSING"))
    context = replace(CONTEXT, registry=RegisteredSchemas(registry.config))
    assert len(land_again(layout, "kb", context, [reject]).landed) == 1
    assert len(rows(layout, "registered_schemas")) >= 1
    absent = "00000000-0000-0000-0000-00000000abcd" if registry.kind == "glue" else "99999"
    assert fetch(registry.config, absent) is None
    meaning = decode(batch[0]._replace(value=_with_id(registry.kind, absent, batch[0].value)), context)
    assert isinstance(meaning, Reject)
    assert meaning.condition == "REGISTRY_SCHEMA_MISSING"


def _with_id(kind: RegistryKind, name: str, value: bytes | None) -> bytes:
    assert value is not None
    if kind == "glue":
        return value[:2] + bytes.fromhex(name.replace("-", "")) + value[18:]
    return value[:1] + int(name).to_bytes(4, "big") + value[5:]


def test_check_says_what_is_wrong(
    confluent_registry: Server, glue_registry: Server, instant_model: ModelService
) -> None:
    check(confluent_registry.config)
    check(glue_registry.config)
    wrong = confluent_registry.config.model_copy(update={"password": SecretStr("other")})
    with pytest.raises(ConfigurationError, match="username") as refused:
        check(wrong)
    assert refused.value.condition == "REGISTRY_REFUSES"
    assert "other" not in str(refused.value)
    url = instant_model.endpoint["endpoint_url"]
    with pytest.raises(ConfigurationError) as unknown:
        check(confluent_registry.config.model_copy(update={"url": url}))
    assert unknown.value.condition == "REGISTRY_UNKNOWN"


def test_a_schema_that_refers_to_others_is_read_with_them(
    confluent_registry: Server, schema_registry: SchemaRegistry
) -> None:
    subject = unique("address")
    address = '{"type":"record","name":"Address","namespace":"kb","fields":[{"name":"city","type":"string"}]}'
    schema_registry.register(subject, {"schema": address})
    person = '{"type":"record","name":"Person","namespace":"kb","fields":[{"name":"home","type":"kb.Address"}]}'
    references = [{"name": "kb.Address", "subject": subject, "version": 1}]
    number = schema_registry.register(unique("person"), {"schema": person, "references": references})
    assert fetch(confluent_registry.config, str(number)) == RegisteredSchema("AVRO", person, (address,))

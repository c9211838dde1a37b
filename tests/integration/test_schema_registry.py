"""Schemas looked up over the wire: AWS Glue's registry (moto's endpoint) and Confluent's REST API (our stand-in)."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from deltalake import DeltaTable
from pydantic import SecretStr
from pyspark.sql import DataFrame, SparkSession

from embeddings import open_embedder
from embeddings.bedrock.config import BedrockEmbeddingConfig
from glue_jobs.config.pipeline import PipelineConfig
from glue_jobs.operations import capture_checks
from indexing.work_unit import decoded
from lake.history.current import fold_table
from lake.landing.batch import Landing
from lake.landing.decoding import Tally
from lake.landing.replay import Choice, land_again, open_rejects
from lake.layout import LakeLayout
from lake.registered_schemas import LandedSchemas
from local_stack.faults.tcp import FaultProxy
from local_stack.models.service import ModelService
from local_stack.servers.aws import REGION, Moto
from local_stack.servers.connect import request_json
from local_stack.servers.kafka import Broker
from local_stack.standins.schema_registry.server import PASSWORD, USERNAME, SchemaRegistry
from reader.channel import ask
from reader.messages import Instruction, ReaderSettings, Stop
from reader.starting import instruct
from schemas.changes import Changes, Reject
from schemas.errors import ConfigurationError, UnavailableError
from schemas.records import Record
from sinks import open_sink
from sinks.pgvector.config import PgvectorConfig
from sources import read_stream
from sources.kafka.config import KafkaSourceConfig
from sources.registry.config import ConfluentRegistryConfig, GlueRegistryConfig, RegistryConfig
from sources.registry.lookup import RegisteredSchemas, check, fetch
from tests.feeding import CONTEXT as FED
from tests.feeding import SPECS
from tests.history import TABLE
from tests.lake_fixtures import frame, transaction
from tests.recorded import CONTEXT, records
from tests.registered import Known, as_registered
from tests.servers import unique
from tests.waiting import eventually
from transforms.envelopes.decode import decode
from transforms.envelopes.registry import RegisteredSchema, RegistryKind

SECRET = b"k" * 32
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


class Captured:
    """A table whose changes come in Avro, as a connector and a registry's converter write them; its columns may become more."""

    def __init__(self, server: Server, broker: Broker, topic: str) -> None:
        self.server, self.register = server, remembering(server.register)
        self.producer, self.topic, self.lsn = broker.producer(), topic, 0
        servers = broker.endpoint["bootstrap_servers"]
        self.source = KafkaSourceConfig(
            type="kafka", envelope="debezium", bootstrap_servers=servers, topics=[topic], registry=server.config
        )
        self.columns = {"id": "int64", "body": "string"}

    def commit(self, op: str, row: dict[str, Any], before: dict[str, Any] | None = None) -> None:
        """Publish one change to the partition of its row, and after a delete its tombstone."""
        self.lsn += 1
        fields = [{"field": name, "type": kind, "optional": name != "id"} for name, kind in self.columns.items()]
        named = {"type": "struct", "name": f"{self.topic}.Value", "optional": True, "fields": fields}
        kinds = {"connector": "string", "schema": "string", "table": "string", "sequence": "string", "ts_us": "int64"}
        source = {
            "connector": "postgresql",
            "schema": "public",
            "table": "t",
            "sequence": f'["{self.lsn}","{self.lsn}"]',
        }
        block = {"type": "struct", "name": f"{self.topic}.Envelope", "fields": [
            named | {"field": "before"}, named | {"field": "after"}, {"field": "op", "type": "string"},
            {"field": "source", "type": "struct", "name": "io.debezium.connector.postgresql.Source",
             "fields": [{"field": name, "type": kind} for name, kind in kinds.items()]},
        ]}  # fmt: skip
        after = None if op == "d" else row
        payload = {"before": before, "after": after, "op": op, "source": source | {"ts_us": self.lsn}}
        key = {"type": "struct", "name": f"{self.topic}.Key", "fields": [{"field": "id", "type": "int64"}]}
        documents = ({"schema": key, "payload": {"id": row["id"]}}, {"schema": block, "payload": payload})
        keyed, value = (json.dumps(document, separators=(",", ":")).encode() for document in documents)
        plain = Record(self.topic, "0", "0", keyed, value)
        record = as_registered(plain, "AVRO", self.server.kind, self.register)
        for part in (record.value, *([None] if op == "d" else [])):
            self.producer.produce(self.topic, part, record.key, row["id"] % 2)
        assert self.producer.flush(30) == 0


@pytest.fixture
def captured(glue_registry: Server, kafka: Broker, new_topic: Callable[..., str]) -> Captured:
    return Captured(glue_registry, kafka, new_topic(2))


def test_avro_of_a_topic_is_indexed_and_landed_while_its_schema_evolves(
    captured: Captured, instant_model: ModelService, vectors_dsn: str, spark: SparkSession, tmp_path: Path
) -> None:
    layout = LakeLayout(str(tmp_path / "lake"))
    kept = LandedSchemas(layout.root, "kafka")
    source = captured.source
    assert source.registry is not None
    context = replace(FED, registry=RegisteredSchemas(source.registry, kept))
    store = PgvectorConfig(type="pgvector", name="docs", dsn=SecretStr(vectors_dsn), table="docs")
    embedding = BedrockEmbeddingConfig(
        type="bedrock", model="amazon.titan-embed-text-v2:0", dimensions=512, region=REGION, access_key="local",
        secret_key=SecretStr("local"), endpoint_url=instant_model.endpoint["endpoint_url"],
    )  # fmt: skip
    embedder = open_embedder(embedding)
    with closing(open_sink(store, embedder.fingerprint, embedder.dimensions)) as sink:
        sink.prepare()
    settings = ReaderSettings(source, context, SPECS, (store,), embedding, bind="127.0.0.1", orphan_seconds=5.0)
    at = Instruction("1", 0, 0, {"docs": {f"{captured.topic}/{number}": 0 for number in range(2)}})

    def is_written(records: int) -> bool:
        nonlocal at
        harvest = instruct(settings, at, SECRET)
        at = replace(
            at, batch=at.batch + 1, positions=harvest.positions, behind=harvest.behind, address=harvest.address
        )
        return sum(harvest.positions["docs"].values()) == records

    def landed() -> Tally:
        tallies: list[Tally] = []

        def land(batch: DataFrame, number: int) -> None:
            tallies.append(Landing(layout, "kafka", context).land(batch, transaction("q", number)))

        stream = read_stream(spark, source, str(tmp_path / "land")).writeStream.foreachBatch(land)
        stream.option("checkpointLocation", str(tmp_path / "land")).trigger(
            availableNow=True
        ).start().awaitTermination()
        (tally,) = tallies
        return tally

    try:
        captured.commit("c", {"id": 1, "body": "one"})
        captured.commit("c", {"id": 2, "body": "two"})
        assert eventually(lambda: is_written(2))
        assert landed().landed == {TABLE: 2}
        captured.columns["a"] = "string"  # ALTER TABLE t ADD COLUMN a text
        captured.commit("u", {"id": 1, "body": "one", "a": "new"}, {"id": 1, "body": "one", "a": None})
        captured.commit("c", {"id": 3, "body": "three", "a": "x"})
        captured.commit("d", {"id": 2}, {"id": 2, "body": "two", "a": None})
        assert eventually(lambda: is_written(6)), "the tombstone too"
    finally:
        if at.address:
            ask(at.address, SECRET, Stop(), 1)
    tally = landed()
    assert (tally.landed, tally.rejected.total(), tally.ignored.total()) == ({TABLE: 3}, 0, 1)
    with psycopg.connect(vectors_dsn) as connection:
        shown = connection.execute("SELECT key ->> 'id', chunk_text, metadata ->> 'a' FROM docs ORDER BY 1").fetchall()
    assert shown == [("1", "one", "new"), ("3", "three", "x")]
    assert len(rows(layout, "registered_schemas")) == 3, "a key's, and a value's before and after the new column"
    lost = replace(FED, registry=RegisteredSchemas(captured.server.dead(), kept))
    live = fold_table(layout, TABLE, {"kafka": lost}).live()
    assert {row["id"]: row for row in (state.values() for state in live.values())} == {
        1: {"id": 1, "body": "one", "a": "new"},
        3: {"id": 3, "body": "three", "a": "x"},
    }


def test_check_names_subjects_whose_level_refuses_what_a_table_becomes(
    schema_registry: SchemaRegistry, confluent_registry: Server
) -> None:
    topic = f"{unique('desk')}.shop.dbo.a"
    config = confluent_registry.config.model_dump() | {"password": PASSWORD}
    source = {"type": "kafka", "envelope": "debezium", "bootstrap_servers": "127.0.0.1:1", "topics": [topic]}
    capture = {"type": "debezium", "database": "sqlserver", "dsn": "sqlserver://u:p@127.0.0.1:1/shop"}

    def noted(**members: Any) -> list[str]:
        pipeline = PipelineConfig.model_validate({
            "name": "desk", "source": source | {"registry": config}, "capture": capture | members,
            "tables": [{"table": "shop.dbo.a", "keys": ["id"]}], "lake": {"path": "lake"}, "checkpoint": "checkpoint",
        })  # fmt: skip
        return [note for note in capture_checks.notes(pipeline) if "level of compatibility" in note]

    (note,) = noted()
    assert f"is BACKWARD for {topic}-key, {topic}-value." in note
    request_json(schema_registry.url, "PUT", f"/config/{topic}-key", {"compatibility": "NONE"})
    assert f"is BACKWARD for {topic}-value." in noted()[0]
    request_json(schema_registry.url, "PUT", f"/config/{topic}-value", {"compatibility": "NONE"})
    assert noted() == noted(converter="worker") == []
    confluent_registry.proxy.refuse()
    try:
        assert noted() == []
    finally:
        confluent_registry.proxy.heal()

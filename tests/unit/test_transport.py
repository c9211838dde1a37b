"""Beyond this machine, encrypted and verified: no part's configuration lets anything else through unless it is told to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict
from pydantic import BaseModel, TypeAdapter, ValidationError

from embeddings import EmbeddingConfig
from embeddings.budget.config import LedgerConfig
from glue_jobs.config.pipeline import PipelineConfig
from glue_jobs.config.values import refuse_plain_endpoints
from memory import MemoryConfig
from reranking import RerankingConfig
from retrieval import GenerationConfig
from schemas.errors import ConfigurationError
from schemas.transport import is_this_machine
from service.callers import CallersConfig
from service.config import ServeConfig
from sinks import SinkConfig
from sinks.pgvector.config import PgvectorConfig
from sources import SourceConfig
from sources.capture.rendering import CaptureConfig
from sources.registry.config import RegistryConfig
from warehouse.config import RedshiftConfig

TITAN = {"type": "bedrock", "model": "amazon.titan-embed-text-v2:0", "dimensions": 512}
PGVECTOR = {"type": "pgvector", "table": "kb"}
DOCUMENTDB = {"type": "documentdb", "database": "kb", "collection": "kb"}
KAFKA = {"type": "kafka", "envelope": "debezium", "topics": ["t"]}
REDSHIFT: dict[str, Any] = {
    "type": "redshift", "host": "127.0.0.1", "database": "d", "user": "u", "password": "p", "staging": "s3://bucket/x",
}  # fmt: skip

type Part = tuple[Any, Mapping[str, Any]]

PLAIN: dict[str, Callable[[str], Part]] = {
    "opensearch": lambda h: (SinkConfig, {"type": "opensearch", "index": "kb", "url": f"http://{h}:9200"}),
    "pgvector, turned down": lambda h: (SinkConfig, PGVECTOR | {"dsn": f"postgresql://u:p@{h}/d?sslmode=disable"}),
    "pgvector, unverified": lambda h: (SinkConfig, PGVECTOR | {"dsn": f"host='{h.strip('[]')}' sslmode=require"}),
    "pgvector, by address": lambda h: (
        SinkConfig, PGVECTOR | {"dsn": f"host=localhost hostaddr='{h.strip('[]')}' sslmode=verify-ca"}
    ),
    "documentdb": lambda h: (SinkConfig, DOCUMENTDB | {"uri": f"mongodb://u:p@{h}:27017/?replicaSet=rs0"}),
    "documentdb, one of two": lambda h: (SinkConfig, DOCUMENTDB | {"uri": f"mongodb://localhost,{h}"}),
    "documentdb, turned off": lambda h: (SinkConfig, DOCUMENTDB | {"uri": f"mongodb://{h}/?tls=false"}),
    "documentdb, unverified": lambda h: (
        SinkConfig, DOCUMENTDB | {"uri": f"mongodb://{h}/?tls=true&tlsAllowInvalidHostnames=true"}
    ),
    "kafka": lambda h: (SourceConfig, KAFKA | {"bootstrap_servers": f"localhost:9092,{h}:9092"}),
    "kafka, without a name": lambda h: (
        SourceConfig,
        KAFKA | {"bootstrap_servers": f"{h}:9092", "options": {
            "kafka.security.protocol": "SSL", "kafka.ssl.endpoint.identification.algorithm": ""}},
    ),
    "kinesis": lambda h: (
        SourceConfig, {"type": "kinesis", "envelope": "dms", "stream": "s", "endpoint_url": f"http://{h}:4567"}
    ),
    "a registry": lambda h: (RegistryConfig, {"type": "confluent", "url": f"http://{h}:8081"}),
    "a registry of AWS": lambda h: (RegistryConfig, {"type": "glue", "endpoint_url": f"http://{h}"}),
    "embedding": lambda h: (EmbeddingConfig, TITAN | {"endpoint_url": f"http://{h}:1/v1"}),
    "a budget's ledger": lambda h: (
        LedgerConfig, {"type": "dynamodb", "table": "budgets", "name": "titan", "endpoint_url": f"http://{h}"}
    ),
    "generation": lambda h: (
        GenerationConfig, {"type": "bedrock", "model": "amazon.nova-lite-v1:0", "endpoint_url": f"http://{h}"}
    ),
    "embedding, SageMaker": lambda h: (
        EmbeddingConfig,
        {"type": "sagemaker", "container": "tei", "endpoint": "e", "model": "m", "dimensions": 384, "endpoint_url": f"http://{h}"},
    ),
    "generation, SageMaker": lambda h: (
        GenerationConfig, {"type": "sagemaker", "endpoint": "e", "model": "m", "endpoint_url": f"http://{h}"}
    ),
    "reranking": lambda h: (
        RerankingConfig, {"type": "bedrock", "model": "cohere.rerank-v3-5:0", "endpoint_url": f"http://{h}"}
    ),
    "reranking, SageMaker": lambda h: (
        RerankingConfig, {"type": "sagemaker", "endpoint": "e", "model": "m", "endpoint_url": f"http://{h}"}
    ),
    "memory in dynamodb": lambda h: (
        MemoryConfig, {"type": "dynamodb", "table": "memory", "endpoint_url": f"http://{h}:8000"}
    ),
    "memory in documentdb": lambda h: (
        MemoryConfig, {"type": "documentdb", "database": "m", "uri": f"mongodb://u:p@{h}:27017/?replicaSet=rs0"}
    ),
    "memory in memorydb": lambda h: (MemoryConfig, {"type": "memorydb", "url": f"redis://u:p@{h}:6379"}),
    "warehouse": lambda h: (RedshiftConfig, REDSHIFT | {"host": h.strip("[]"), "ssl": False}),
    "warehouse's staging": lambda h: (RedshiftConfig, REDSHIFT | {"endpoint_url": f"http://{h}"}),
    "the service": lambda h: (
        ServeConfig, {"host": h, "callers": {"type": "api_keys", "keys": [{"name": "a", "sha256": "0" * 64}]}}
    ),
    "the keys of tokens": lambda h: (
        CallersConfig, {"type": "jwt", "issuer": "i", "audience": ["a"], "jwks_url": f"http://{h}/jwks.json"}
    ),
    "the keys of a load balancer": lambda h: (CallersConfig, {"type": "alb", "signer": ["arn"], "keys_url": f"http://{h}"}),
    "capture": lambda h: (CaptureConfig, {"type": "dms", "dsn": f"postgresql://u:p@{h}:5432/d?sslmode=require"}),
    "capture of mysql": lambda h: (
        CaptureConfig, {"type": "debezium", "database": "mysql", "dsn": f"mysql://u:p@{h}:3306/?ssl-mode=VERIFY_CA"}
    ),
    "capture of sql server": lambda h: (
        CaptureConfig, {"type": "debezium", "database": "sqlserver", "dsn": f"sqlserver://u:p@{h}:1433/?encrypt=false"}
    ),
    "capture of oracle": lambda h: (
        CaptureConfig, {"type": "debezium", "database": "oracle", "dsn": f"oracle://u:p@{h}:1521/o"}
    ),
    "brokers of a capture": lambda h: (
        CaptureConfig,
        {"type": "debezium", "dsn": "postgresql://u:p@127.0.0.1/d", "bootstrap_servers": f"{h}:9092"},
    ),
    "connect": lambda h: (
        CaptureConfig, {"type": "debezium", "dsn": "postgresql://u:p@127.0.0.1/d", "connect_url": f"http://{h}:8083"}
    ),
}  # fmt: skip
"""Every part as it would reach a host unencrypted, or without a look at who answers."""

SERVER_KEYS = {"url", "uri", "dsn", "host", "endpoint_url", "bootstrap_servers", "connect_url", "jwks_url", "keys_url"}
NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z][a-z0-9-]{0,10}){0,3}", fullmatch=True)
ADDRESSES = st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(lambda address: f"[{address}]")
LOOPBACK = ["127.0.0.1", "127.8.9.10", "localhost", "LocalHost", "[::1]"]


def built(part: Part, **more: Any) -> BaseModel:
    kind, fields = part
    config: BaseModel = TypeAdapter(kind).validate_python(dict(fields) | more)
    return config


@pytest.mark.parametrize("name", PLAIN)
@given(host=NAMES | ADDRESSES)
@settings(deadline=None, max_examples=60)  # building a pydantic adapter takes as long as the machine is busy
def test_no_other_machine_is_reached_unencrypted_or_unverified_unless_it_is_allowed(name: str, host: str) -> None:
    part = PLAIN[name](host)
    if is_this_machine(host):
        built(part)
        return
    with pytest.raises(ValidationError, match=r"allow_plaintext: true"):
        built(part)
    built(part, allow_plaintext=True)


def test_every_part_that_names_a_server_is_held_to_the_rule() -> None:
    definitions = PipelineConfig.model_json_schema()["$defs"]
    reaching = {
        name for name, definition in definitions.items() if SERVER_KEYS & definition.get("properties", {}).keys()
    }
    assert reaching == {
        name for name, definition in definitions.items() if "allow_plaintext" in definition.get("properties", {})
    } - {"LakeConfig"}
    assert len(reaching) == len({type(built(PLAIN[name]("localhost"))).__name__ for name in PLAIN})


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("host", LOOPBACK)
def test_this_machine_is_reached_as_before(name: str, host: str) -> None:
    built(PLAIN[name](host))


@pytest.mark.parametrize(
    "host",
    [
        "localhost.example", "127.0.0.1.example", "127.1", "2130706433", "10.0.0.1", "169.254.169.254", "",
        "host.docker.internal", "::", "[fe80::1]", "localhost@db", "db#localhost",
    ],
)  # fmt: skip
def test_what_only_looks_like_this_machine_is_another(host: str) -> None:
    assert not is_this_machine(host)


@pytest.mark.parametrize("url", ["http://127.0.0.1@db/", "http://db\\@127.0.0.1/", "http://db#@localhost", "ftp://db"])
def test_an_address_that_clients_may_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="endpoint_url"):
        built((EmbeddingConfig, TITAN | {"endpoint_url": url}))


@pytest.mark.parametrize(
    "uri", ["mongodb://db/@127.0.0.1", "mongodb://127.0.0.1@db", "mongodb://db/?tlsInsecure=%74rue"]
)
def test_a_uri_is_read_as_its_client_reads_it(uri: str) -> None:
    with pytest.raises(ValidationError, match="`uri`"):
        built((SinkConfig, DOCUMENTDB | {"uri": uri}))


@pytest.mark.parametrize("at", ["127.0.0.1?x@db", "127.0.0.1:1,db:2", "db", "127.0.0.1/d?host=db&", "u@db@127.0.0.1"])
def test_the_host_of_a_captured_database_is_not_taken_for_another(at: str) -> None:
    mark = "&" if "?" in at else "?"
    with pytest.raises(ValidationError, match="`dsn`"):
        built((CaptureConfig, {"type": "dms", "dsn": f"postgresql://{at}/d{mark}sslmode=disable"}))


def test_libpq_is_told_to_verify_where_the_connection_string_leaves_it_open() -> None:
    def conninfo(dsn: str, **more: Any) -> dict[str, Any]:
        config = built((SinkConfig, PGVECTOR | {"dsn": dsn}), **more)
        assert isinstance(config, PgvectorConfig)
        return {n: v for n, v in conninfo_to_dict(config.conninfo).items() if n.startswith("ssl")}

    assert conninfo("postgresql://u:p@db/d") == {"sslmode": "verify-full", "sslrootcert": "system"}
    assert conninfo("host=db sslrootcert=/ca.pem") == {"sslmode": "verify-full", "sslrootcert": "/ca.pem"}
    assert conninfo("host=db sslmode=verify-full") == {"sslmode": "verify-full"}
    assert conninfo("service=db") == {"sslmode": "verify-full", "sslrootcert": "system"}
    assert conninfo("postgresql://u:p@db/d", allow_plaintext=True) == {}
    for here in ("postgresql://u:p@127.0.0.1:5432/d", "host=/var/run/postgresql", "host=localhost,127.0.0.2"):
        assert conninfo(here) == {}


def test_libpqs_own_variables_are_not_taken_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db.example")
    with pytest.raises(ValidationError, match="sslmode=verify-full"):
        built((SinkConfig, PGVECTOR | {"dsn": "dbname=kb sslmode=disable"}))


def test_awss_own_variables_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", "https://kinesis.example")
    refuse_plain_endpoints()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://minio.example:9000")
    with pytest.raises(ConfigurationError, match="`AWS_ENDPOINT_URL_S3` reaches another machine") as raised:
        refuse_plain_endpoints()
    assert raised.value.exit_status == 2


def test_a_weakness_does_not_quote_what_may_be_secret() -> None:
    with pytest.raises(ValidationError) as raised:
        built((SinkConfig, PGVECTOR | {"dsn": "postgresql://u:swordfish@db.example/d?sslmode=disable"}))
    message = str(raised.value.errors(include_input=False, include_url=False, include_context=False))
    assert "swordfish" not in message
    assert "db.example" not in message

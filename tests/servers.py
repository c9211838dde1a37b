"""Fixtures over the real servers, for `tests/conftest.py`.

A server starts with the first test that requests it and ends with the session, also when the session is killed. A server
that cannot start fails the test: nothing is skipped. Databases, topics and streams are new for every test.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from local_stack.faults.tcp import FaultProxy
from local_stack.guardian import guard
from local_stack.models.service import ModelService
from local_stack.servers.aws import REGION, AwsEndpoint, KinesisLocal, Ministack, Moto
from local_stack.servers.binlog import BinlogDatabase
from local_stack.servers.connect import Connect
from local_stack.servers.kafka import Broker
from local_stack.servers.mariadb import MariaDB
from local_stack.servers.memorydb import MemoryDB
from local_stack.servers.mysql import MySQL
from local_stack.servers.opensearch import OpenSearch
from local_stack.servers.postgres import Postgres, SourceDatabase, VectorStore
from local_stack.service import Service
from local_stack.stack import Stack
from local_stack.standins.documentdb.server import DocumentDB
from local_stack.standins.redshift.server import Redshift
from local_stack.standins.schema_registry.server import SchemaRegistry
from tests.endpoint import Endpoint
from tests.waiting import eventually


@pytest.fixture(scope="session")
def local_stack() -> Iterator[Stack]:
    """The stack of this session, without running servers."""
    stack = Stack(Path(tempfile.mkdtemp(prefix="ragstream-tests-")))
    guard(stack.directory)
    yield stack
    stack.remove()


def _server[S: Service](kind: type[S], part: str = "") -> Any:
    """A session fixture, named after the part, that starts a server."""

    def start(local_stack: Stack) -> S:
        name = part or kind.part
        local_stack.up([name])
        service = local_stack.service(name)
        assert isinstance(service, kind)
        return service

    return pytest.fixture(start, scope="session", name=(part or kind.part).replace("-", "_"))


postgres = _server(SourceDatabase)
"""The source database."""
mariadb = _server(MariaDB)
"""Another source database, with a binary log."""
mysql = _server(MySQL)
"""MySQL, for tests with the mark `mysql` alone."""
vectors = _server(VectorStore)
opensearch = _server(OpenSearch)
documentdb = _server(DocumentDB)
memorydb = _server(MemoryDB)
"""Valkey in cluster mode."""
kafka = _server(Broker)
connect = _server(Connect)
"""Kafka Connect with Debezium, on the session's broker."""
aws = _server(Ministack)
"""Kinesis, S3, Secrets Manager and DynamoDB; not for resharding."""
redshift = _server(Redshift)
"""The stand-in for Redshift, over the S3 of `aws`."""
glue = _server(Moto)
"""AWS Glue Schema Registry."""
schema_registry = _server(SchemaRegistry)
"""The stand-in for Confluent's Schema Registry."""
kinesis = _server(KinesisLocal)
"""Kinesis whose shards split and merge correctly."""
model = _server(ModelService)
"""Bedrock's runtime over the real models."""
instant_model = _server(ModelService, "instant-model")
"""Bedrock's runtime over vectors of hashes: equal texts have equal vectors, without a meaning."""


@pytest.fixture
def endpoint(instant_model: ModelService) -> Iterator[Endpoint]:
    """The instant model's endpoint, without faults and with counters at zero."""
    endpoint = Endpoint(instant_model)
    endpoint.reset()
    yield endpoint
    endpoint.reset()


@pytest.fixture
def source_dsn(postgres: SourceDatabase) -> Iterator[str]:
    """DSN of a new, empty database of the source."""
    yield from new_database(postgres)


@pytest.fixture(params=["mariadb", pytest.param("mysql", marks=pytest.mark.mysql)])
def binlog_server(request: pytest.FixtureRequest) -> BinlogDatabase:
    """A source database with a binary log: MariaDB, and in `make test-mysql` MySQL."""
    server: BinlogDatabase = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def binlog_database(binlog_server: BinlogDatabase) -> Iterator[str]:
    """Name of a new, empty database of it."""
    yield from new_binlog_database(binlog_server)


@pytest.fixture
def mariadb_database(mariadb: MariaDB) -> Iterator[str]:
    """Name of a new, empty database of MariaDB."""
    yield from new_binlog_database(mariadb)


@pytest.fixture
def vectors_dsn(vectors: VectorStore) -> Iterator[str]:
    """DSN of a new, empty database of the vector store."""
    yield from new_database(vectors)


@pytest.fixture
def warehouse_dsn(redshift: Redshift) -> Iterator[str]:
    """DSN of a new, empty database of the Redshift stand-in."""
    yield from new_database(redshift)


@pytest.fixture
def search_index(opensearch: OpenSearch) -> Iterator[str]:
    """Name of a new store in OpenSearch."""
    yield from new_index(opensearch)


@pytest.fixture
def document_database(documentdb: DocumentDB) -> Iterator[str]:
    """Name of a new, empty database of the DocumentDB stand-in."""
    yield from new_document_database(documentdb)


@pytest.fixture
def new_topic(kafka: Broker) -> Iterator[Callable[..., str]]:
    """Create a topic with a name of its own: `new_topic(partitions=1, **configuration)`."""
    made: list[str] = []

    def create(partitions: int = 1, **configuration: str) -> str:
        made.append(unique("topic"))
        kafka.create_topic(made[-1], partitions, **configuration)
        return made[-1]

    yield create
    for name in set(made) & set(kafka.topics()):
        kafka.delete_topic(name)


@pytest.fixture
def new_stream(aws: Ministack) -> Iterator[Callable[..., str]]:
    """Create a stream in `aws` with a name of its own: `new_stream(shards=1)`."""
    made: list[str] = []

    def create(shards: int = 1) -> str:
        made.append(create_stream(aws, shards))
        return made[-1]

    yield create
    client = aws.client("kinesis")
    for name in made:
        client.delete_stream(StreamName=name, EnforceConsumerDeletion=True)


@pytest.fixture
def bucket(aws: Ministack, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a new bucket, which this test's process reaches through AWS's own variables."""
    for name, value in aws.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    name = unique("lake").replace("_", "-")
    aws.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    return name


@pytest.fixture
def new_proxy() -> Iterator[Callable[[int], FaultProxy]]:
    """Put a `FaultProxy` before a port: `new_proxy(postgres.port)`."""
    made: list[FaultProxy] = []

    def create(port: int) -> FaultProxy:
        made.append(FaultProxy(port).start())
        return made[-1]

    yield create
    for proxy in made:
        proxy.stop()


def unique(prefix: str) -> str:
    """Return a name that no other test has."""
    return f"{prefix}_{uuid.uuid4().hex[:12]}"


def new_database(server: Postgres) -> Iterator[str]:
    """Yield the DSN of a new database; afterwards it is dropped with its sessions and replication slots."""
    name = unique("db")
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield server.dsn(name)
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as admin:

        def has_no_slot() -> bool:
            slots = "SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = %s"
            left = admin.execute(slots, [name]).fetchall()
            for slot, pid in left:
                if pid is None:
                    admin.execute("SELECT pg_drop_replication_slot(%s)", [slot])
                else:
                    admin.execute("SELECT pg_terminate_backend(%s, 1000)", [pid])
            return not left

        eventually(has_no_slot)
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def new_binlog_database(server: BinlogDatabase) -> Iterator[str]:
    """Yield the name of a new database; afterwards it is dropped."""
    name = unique("db")
    server.execute(f"CREATE DATABASE {name}")
    yield name
    server.execute(f"DROP DATABASE {name}")


def new_index(server: OpenSearch) -> Iterator[str]:
    """Yield the name of a new store; afterwards its indexes and their template are deleted."""
    name = unique("kb")
    yield name
    with server.client() as client:
        client.indices.delete(index=f"{name}*")
        client.indices.delete_index_template(name=f"{name}*", ignore=404)


def new_document_database(server: DocumentDB) -> Iterator[str]:
    """Yield the name of a new database; afterwards it is dropped."""
    name = unique("db")
    yield name
    with server.client() as client:
        client.drop_database(name)


def create_stream(endpoint: AwsEndpoint, shards: int) -> str:
    """Create a stream, return its name once it can be written to."""
    client, name = endpoint.client("kinesis"), unique("stream")
    client.create_stream(StreamName=name, ShardCount=shards)
    client.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    return name

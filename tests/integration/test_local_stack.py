"""The local stack itself: what starts is found, hurt, brought back and ended, also behind a starter that was killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Consumer, Producer

from local_stack import ports, processes
from local_stack.faults.aws import AwsFaultProxy
from local_stack.faults.tcp import FaultProxy
from local_stack.servers.aws import AwsEndpoint, KinesisLocal, Ministack
from local_stack.servers.binlog import BinlogDatabase
from local_stack.servers.connect import Connect
from local_stack.servers.kafka import Broker
from local_stack.servers.postgres import SourceDatabase, VectorStore
from local_stack.stack import Stack
from schemas.errors import ConfigurationError
from tests.servers import create_stream
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A working directory; whatever a test starts in it is ended."""
    yield tmp_path
    Stack(tmp_path / ".ragstream").remove()


def ragstream_stack(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "glue_jobs", "stack", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder: Path, *arguments: str) -> str:
    with ragstream_stack(folder, *arguments) as process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


def rows(dsn: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


# --- the command line


def test_up_writes_the_endpoints_and_down_leaves_nothing(folder: Path) -> None:
    shown = run(folder, "up", "--parts", "postgres,aws")
    assert "postgres" in shown
    assert "\x1b" not in shown, "no terminal, no escape codes"
    state = folder / ".ragstream"
    endpoints = json.loads((state / "stack.json").read_text())
    secrets = json.loads((state / "secrets.json").read_text())
    assert set(endpoints) == {"postgres", "aws"}
    assert set(endpoints["aws"]) == {"endpoint_url", "region", "access_key", "secret_key"}
    assert secrets == {"source": endpoints["postgres"]["dsn"]}
    assert {stat.S_IMODE((state / name).stat().st_mode) for name in ("stack.json", "secrets.json")} == {0o600}
    assert rows(endpoints["postgres"]["dsn"], "SHOW wal_level") == [("logical",)]
    assert "up" in run(folder, "status")

    used = [port for status in Stack(state).status() for port in status.ports]
    assert "postgres" in run(folder, "down")
    assert not processes.inside(folder)
    assert not any(map(ports.accepts, used))
    assert not (state / "stack.json").exists()
    assert not (state / "secrets.json").exists()
    assert "nothing was up" in run(folder, "down")


def test_up_again_keeps_processes_and_endpoints(folder: Path) -> None:
    run(folder, "up", "--parts", "postgres")
    before = (folder / ".ragstream/stack.json").read_text()
    pid = Stack(folder / ".ragstream").service("postgres").status.pid
    run(folder, "up", "--parts", "postgres")
    assert (folder / ".ragstream/stack.json").read_text() == before
    assert Stack(folder / ".ragstream").service("postgres").status.pid == pid


def test_down_finds_what_a_killed_starter_left(folder: Path) -> None:
    starter = ragstream_stack(folder, "up", "--parts", "postgres,kafka,connect,aws")
    eventually(lambda: len(processes.inside(folder)) >= 3)  # children there, but not yet ready
    starter.kill()
    starter.communicate()
    left = processes.inside(folder)
    assert left
    run(folder, "down")
    assert not [process for process in left if process.alive]
    assert not processes.inside(folder)


def test_down_ends_what_has_no_record_any_more(folder: Path) -> None:
    run(folder, "up", "--parts", "postgres")
    (folder / ".ragstream/run/postgres/process").unlink()
    (folder / ".ragstream/run/postgres/service.json").unlink()
    run(folder, "down")
    assert not processes.inside(folder)


def test_down_also_ends_a_paused_server(folder: Path) -> None:
    run(folder, "up", "--parts", "postgres")
    Stack(folder / ".ragstream").service("postgres").pause()
    run(folder, "down")
    assert not processes.inside(folder)


def test_a_recycled_pid_is_never_signalled(folder: Path) -> None:
    stack = Stack(folder / ".ragstream")
    stack.up(["aws"])
    record = folder / ".ragstream/run/aws/process"
    service = stack.service("aws")
    mine = processes.find(service.status.pid or 0)
    assert mine is not None
    with subprocess.Popen(
        ["sleep", "60"]
    ) as innocent:  # gets the pid in the record, as if the server had died long ago
        text, boot = record.read_text().splitlines()
        record.write_text(f"{innocent.pid} {text.partition(' ')[2]}\n{boot}\n")
        assert not service.status.up
        service.stop()
        assert innocent.poll() is None
        innocent.kill()
    assert not mine.alive, "the server itself is found by its mark"


def test_a_missing_program_is_named_with_what_mends_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(ConfigurationError, match="java") as caught:
        Stack(folder / ".ragstream").up(["kafka"])
    assert "Java 17" in str(caught.value)


def test_an_unknown_part_is_a_configuration_error(folder: Path) -> None:
    with ragstream_stack(folder, "up", "--parts", "postgers") as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "postgers" in output
    assert "postgres" in output
    assert not processes.inside(folder)


def test_up_takes_another_port_where_the_old_one_is_taken_by_now(folder: Path) -> None:
    stack = Stack(folder / ".ragstream")
    stack.up(["aws"])
    stack.down()
    port = stack.service("aws").port
    with socket.socket() as thief:
        thief.bind((ports.HOST, port))
        thief.listen()
        endpoints = stack.up(["aws"])
    assert str(port) not in endpoints["aws"]["endpoint_url"]


def test_server_that_ends_while_starting_is_an_error_that_names_its_log(folder: Path) -> None:
    stack = Stack(folder / ".ragstream")
    stack.up(["aws"])
    service = stack.service("aws")
    service.stop()
    with socket.socket() as thief:
        thief.bind((ports.HOST, service.port))
        thief.listen()
        with pytest.raises(ConfigurationError, match=str(service.log)):
            service.start()


def test_a_guarded_stack_ends_with_its_owner(tmp_path: Path) -> None:
    program = (
        "import signal, sys; from pathlib import Path; from local_stack.guardian import guard;"
        "from local_stack.stack import Stack; stack = Stack(Path(sys.argv[1])); guard(stack.directory);"
        "stack.up(['aws']); print('up', flush=True); signal.pause()"
    )
    directory = tmp_path / "stack"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, str(directory)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        left = processes.inside(directory)
        assert len(left) == 2
        owner.kill()
    eventually(lambda: not any(process.alive for process in left))
    assert not processes.inside(directory)
    assert not directory.exists()


# --- PostgreSQL


def test_the_vector_store_sorts_text_unlike_bytes(vectors: VectorStore, vectors_dsn: str) -> None:
    ordered = rows(vectors_dsn, "SELECT x FROM unnest(array['B', 'a', '_', '10']) x ORDER BY x")
    assert vectors.collation.name.startswith("en_US")
    assert [x for (x,) in ordered] != sorted(["B", "a", "_", "10"])
    assert rows(vectors_dsn, "SELECT x FROM unnest(array['a', 'B']) x ORDER BY x COLLATE \"C\"") == [("B",), ("a",)]


def test_the_vector_store_has_pgvector(vectors_dsn: str) -> None:
    with psycopg.connect(vectors_dsn) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE TABLE t (e vector(3))")
        connection.execute("CREATE INDEX ON t USING hnsw (e vector_cosine_ops)")
        connection.execute("INSERT INTO t VALUES ('[1,2,3]')")
        assert connection.execute("SELECT e <=> '[1,2,3]' FROM t").fetchone() == (0.0,)


def test_commits_survive_a_kill_on_the_same_port(postgres: SourceDatabase, source_dsn: str) -> None:
    execute(source_dsn, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")
    port = postgres.port
    postgres.kill()
    assert not ports.accepts(port)
    postgres.start()
    assert postgres.port == port
    assert rows(source_dsn, "SELECT count(*) FROM t") == [(1000,)]


def test_a_paused_database_hangs_and_goes_on(postgres: SourceDatabase, source_dsn: str) -> None:
    with (
        psycopg.connect(source_dsn, autocommit=True) as connection,
        socket.create_connection((ports.HOST, postgres.port)),
    ):
        postgres.pause()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(source_dsn, connect_timeout=2)
        postgres.resume()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_the_password_is_needed(source_dsn: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(source_dsn, password="wrong")


def test_row_text_is_not_logged(postgres: SourceDatabase, source_dsn: str) -> None:
    with psycopg.connect(source_dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, body text)")
        connection.execute("INSERT INTO t VALUES (1, 'canary-5f1d')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("INSERT INTO t VALUES (1, 'canary-5f1d')")
        with pytest.raises(psycopg.errors.NotNullViolation):
            connection.execute("INSERT INTO t VALUES (null, 'canary-5f1d')")
    assert "canary-5f1d" not in postgres.log.read_text()


# --- MariaDB and MySQL


def test_commits_to_a_binary_log_survive_a_kill(binlog_server: BinlogDatabase, binlog_database: str) -> None:
    create, insert = "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)"
    binlog_server.execute(create, insert, database=binlog_database)
    port, pid = binlog_server.port, binlog_server.status.pid
    binlog_server.kill()
    assert not ports.accepts(port)
    binlog_server.start()
    assert (binlog_server.port, binlog_server.status.pid != pid) == (port, True)
    assert binlog_server.execute("SELECT id FROM t ORDER BY id", database=binlog_database) == [(1,), (2,)]


# --- Kafka and Debezium


def produce(broker: Broker, topic: str, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": broker.endpoint["bootstrap_servers"], "message.max.bytes": 33_000_000})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(30) == 0


def consume(broker: Broker, topic: str, count: int, seconds: float = 30.0) -> list[bytes]:
    settings = {
        "bootstrap.servers": broker.endpoint["bootstrap_servers"],
        "group.id": topic,
        "auto.offset.reset": "earliest",
        "log_level": 0,
    }
    values: list[bytes] = []
    consumer = Consumer(settings)

    def came() -> bool:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            values.append(message.value() or b"")
        return len(values) >= count

    try:
        consumer.subscribe([topic])
        eventually(came, seconds)
    finally:
        consumer.close()
    return values


def test_topics_have_the_partitions_asked_for_and_none_appears_by_itself(
    kafka: Broker, new_topic: Callable[..., str]
) -> None:
    topic = new_topic(partitions=3)
    assert kafka.topics()[topic] == 3
    with pytest.raises(ConfigurationError, match="ALREADY_EXISTS"):
        kafka.create_topic(topic)
    with pytest.raises(AssertionError, match="not true after"):
        consume(kafka, "nobody-made-this", 1, seconds=1)
    assert "nobody-made-this" not in kafka.topics()


def test_acknowledged_records_survive_a_kill_of_the_broker(kafka: Broker, new_topic: Callable[..., str]) -> None:
    topic = new_topic()
    produce(kafka, topic, b"small", b"x" * 9_000_000)
    kafka.kill()
    kafka.start()
    produce(kafka, topic, b"after")
    assert [len(value) for value in consume(kafka, topic, 3)] == [5, 9_000_000, 5]


def debezium(dsn: str, name: str) -> dict[str, str]:
    part = psycopg.conninfo.conninfo_to_dict(dsn)
    return {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname": str(part["host"]),
        "database.port": str(part["port"]),
        "database.user": str(part["user"]),
        "database.password": str(part["password"]),
        "database.dbname": str(part["dbname"]),
        "plugin.name": "pgoutput",
        "slot.name": name,
        "publication.name": name,
        "table.include.list": "public.t",
        "topic.prefix": name,
        "topic.creation.default.replication.factor": "1",
        "topic.creation.default.partitions": "2",
        "poll.interval.ms": "10",
    }


def test_a_commit_arrives_through_debezium_also_after_the_worker_was_killed(
    kafka: Broker, connect: Connect, source_dsn: str
) -> None:
    name = source_dsn.rpartition("/")[2]
    execute(source_dsn, "CREATE TABLE t (id int PRIMARY KEY, body text)", "INSERT INTO t VALUES (1, 'a')")
    connect.put_connector(name, debezium(source_dsn, name))
    try:
        assert connect.states(name) == ["RUNNING", "RUNNING"]
        assert len(consume(kafka, f"{name}.public.t", 1)) == 1
        connect.kill()
        execute(source_dsn, "INSERT INTO t VALUES (2, 'b')")
        connect.start()
        connect.wait_running(name)
        ids: list[int] = []  # what the worker had not yet noted as sent comes again first
        while 2 not in ids and len(ids) < 3:
            payloads = consume(kafka, f"{name}.public.t", 1)
            ids += [json.loads(payload)["payload"]["after"]["id"] for payload in payloads] or [-1]
        assert 2 in ids
    finally:
        connect.delete_connector(name)
    assert name not in connect.connectors()
    assert kafka.topics()[f"{name}.public.t"] == 2


def test_a_connector_that_cannot_work_is_refused(connect: Connect, source_dsn: str) -> None:
    configuration = debezium(source_dsn, "refused") | {"database.password": "wrong"}
    with pytest.raises(ConfigurationError, match="refused"):
        connect.put_connector("refused", configuration)
    connect.delete_connector("refused")


# --- Kinesis


def put(endpoint: AwsEndpoint, stream: str, values: list[bytes]) -> None:
    records = [{"Data": value, "PartitionKey": "one"} for value in values]
    assert endpoint.client("kinesis").put_records(StreamName=stream, Records=records)["FailedRecordCount"] == 0


def shard_values(endpoint: AwsEndpoint, stream: str, shard: str) -> list[bytes]:
    client, values = endpoint.client("kinesis"), []
    start = {"StreamName": stream, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
    iterator: str | None = client.get_shard_iterator(**start)["ShardIterator"]
    sequences: list[int] = []
    while iterator is not None:
        answer = client.get_records(ShardIterator=iterator)
        values += [record["Data"] for record in answer["Records"]]
        sequences += [int(record["SequenceNumber"]) for record in answer["Records"]]
        iterator = answer.get("NextShardIterator") if answer["Records"] else None
    assert sequences == sorted(set(sequences))
    return values


def test_a_stream_keeps_its_order_and_survives_a_restart(aws: Ministack, new_stream: Callable[..., str]) -> None:
    stream, values = new_stream(), [str(number).encode() for number in range(1000)]
    put(aws, stream, values[:500])
    aws.restart()
    put(aws, stream, values[500:])
    assert shard_values(aws, stream, "shardId-000000000000") == values


def test_a_split_keeps_the_parent_and_its_records(kinesis: KinesisLocal) -> None:
    stream, client = create_stream(kinesis, 1), kinesis.client("kinesis")
    parent = client.list_shards(StreamName=stream)["Shards"][0]["ShardId"]
    put(kinesis, stream, [b"1", b"2"])
    client.split_shard(StreamName=stream, ShardToSplit=parent, NewStartingHashKey=str(2**127))
    client.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1, "MaxAttempts": 10})
    put(kinesis, stream, [b"3"])
    shards = client.list_shards(StreamName=stream)["Shards"]
    children = [shard["ShardId"] for shard in shards if shard.get("ParentShardId") == parent]
    assert len(children) == 2
    assert shard_values(kinesis, stream, parent) == [b"1", b"2"]
    assert [value for child in children for value in shard_values(kinesis, stream, child)] == [b"3"]
    client.delete_stream(StreamName=stream)


# --- faults


def test_a_proxy_passes_everything_on_unchanged(
    postgres: SourceDatabase, source_dsn: str, new_proxy: Callable[[int], FaultProxy]
) -> None:
    proxy = new_proxy(postgres.port)
    with psycopg.connect(source_dsn, port=proxy.port) as connection:
        answer = connection.execute("SELECT repeat('xyz', 1000000)").fetchone()
    assert answer == ("xyz" * 1_000_000,)
    assert proxy.connections == 1
    assert proxy.bytes_passed > 3_000_000


def test_a_proxy_drops_refuses_and_heals(
    postgres: SourceDatabase, source_dsn: str, new_proxy: Callable[[int], FaultProxy]
) -> None:
    proxy = new_proxy(postgres.port)
    with psycopg.connect(source_dsn, port=proxy.port, autocommit=True) as connection:
        proxy.drop()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with psycopg.connect(source_dsn, port=proxy.port, autocommit=True) as connection:
        connection.execute("SELECT 1")
        proxy.refuse()
        with pytest.raises(psycopg.OperationalError, match="refused"):
            psycopg.connect(source_dsn, port=proxy.port)
    proxy.heal()
    with psycopg.connect(source_dsn, port=proxy.port) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_proxy_delays_throttles_and_stalls(
    postgres: SourceDatabase, source_dsn: str, new_proxy: Callable[[int], FaultProxy]
) -> None:
    proxy = new_proxy(postgres.port)
    with psycopg.connect(source_dsn, port=proxy.port, autocommit=True) as connection:

        def seconds(query: bytes) -> float:
            began = time.monotonic()
            connection.execute(query)
            return time.monotonic() - began

        proxy.delay(0.2)
        assert seconds(b"SELECT 1") >= 0.4, "there and back"
        proxy.heal()
        proxy.throttle(1_000_000)
        assert seconds(b"SELECT repeat('x', 500000)") >= 0.4
        proxy.heal()
        proxy.stall()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(source_dsn, port=proxy.port, connect_timeout=2)
        proxy.heal()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_signal_of_the_operator_ends_a_server_in_order(folder: Path) -> None:
    stack = Stack(folder / ".ragstream")
    stack.up(["postgres"])
    service = stack.service("postgres")
    service.stop()
    assert "database system is shut down" in service.log.read_text()
    assert service.stop_signal is signal.SIGINT


# --- faults of AWS's kind


def test_an_aws_endpoint_throttles_on_demand(aws: Ministack, new_stream: Callable[..., str]) -> None:
    stream = new_stream()
    with AwsFaultProxy(aws.endpoint["endpoint_url"]) as proxy:
        client = aws.client("kinesis", endpoint_url=proxy.endpoint_url)
        proxy.throttle("PutRecord", times=2)
        for _ in range(2):
            with pytest.raises(client.exceptions.ProvisionedThroughputExceededException):
                client.put_record(StreamName=stream, Data=b"1", PartitionKey="one")
        client.put_record(StreamName=stream, Data=b"1", PartitionKey="one")
        proxy.fail("*", "InternalFailure", status=500)
        with pytest.raises(client.exceptions.ClientError, match="InternalFailure"):
            client.list_streams()
        assert stream in client.list_streams()["StreamNames"]
        assert proxy.calls["PutRecord"] == 3
    assert shard_values(aws, stream, "shardId-000000000000") == [b"1"]


def test_a_shard_is_held_to_five_reads_a_second(aws: Ministack, new_stream: Callable[..., str]) -> None:
    stream = new_stream(shards=2)
    with AwsFaultProxy(aws.endpoint["endpoint_url"]) as proxy:
        proxy.limit_reads()
        client = aws.client("kinesis", endpoint_url=proxy.endpoint_url)
        for shard in ("shardId-000000000000", "shardId-000000000001"):
            start = {"StreamName": stream, "ShardId": shard, "ShardIteratorType": "LATEST"}
            iterator = client.get_shard_iterator(**start)["ShardIterator"]
            for _ in range(5):
                iterator = client.get_records(ShardIterator=iterator)["NextShardIterator"]
            with pytest.raises(client.exceptions.ProvisionedThroughputExceededException):
                client.get_records(ShardIterator=iterator)

        def is_read_again() -> bool:
            with suppress(client.exceptions.ProvisionedThroughputExceededException):
                return bool(client.get_records(ShardIterator=iterator))
            return False

        eventually(is_read_again)

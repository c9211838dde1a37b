"""The stand-in for Redshift: what it speaks beyond PostgreSQL, with the client that the product has."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redshift_connector
from psycopg.conninfo import conninfo_to_dict

from local_stack.servers.aws import Ministack
from local_stack.standins.redshift.dialect import in_postgresql

BUCKET = "ragstream-stand-in"
COPY = "COPY t FROM '{}' IAM_ROLE default FORMAT AS PARQUET MANIFEST"


@pytest.fixture
def connection(warehouse_dsn: str) -> Iterator[Any]:
    settings = conninfo_to_dict(warehouse_dsn)
    made = redshift_connector.connect(
        host=str(settings["host"]), port=int(str(settings["port"])), database=str(settings["dbname"]), user=str(settings["user"]),
        password=str(settings["password"]), ssl=False,
    )  # fmt: skip
    yield made
    made.close()


@pytest.fixture
def staged(aws: Ministack) -> Callable[..., str]:
    """Stage a table and return its manifest: `staged(table, off=0)`, `off` bytes wrong in its length."""
    s3 = aws.client("s3")
    if BUCKET not in {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}:
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": aws.endpoint["region"]})

    def stage(table: pa.Table, off: int = 0) -> str:
        buffer, name = io.BytesIO(), uuid.uuid4().hex
        pq.write_table(table, buffer)
        s3.put_object(Bucket=BUCKET, Key=f"{name}.parquet", Body=buffer.getvalue())
        length = len(buffer.getvalue()) + off
        entry = {"url": f"s3://{BUCKET}/{name}.parquet", "mandatory": True, "meta": {"content_length": length}}
        s3.put_object(Bucket=BUCKET, Key=name, Body=json.dumps({"entries": [entry]}))
        return f"s3://{BUCKET}/{name}"

    return stage


def test_a_copy_of_parquet_is_part_of_its_transaction(connection: Any, staged: Callable[..., str]) -> None:
    table = pa.table({"k": ["plain", "tab\t \\N \n"], "j": [b'{"n": 1.10}', None]})
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE t (k VARCHAR(100), j VARBYTE(16777216)) DISTKEY(k) SORTKEY(k)")
    connection.commit()
    for end in (connection.rollback, connection.commit):
        cursor.execute(COPY.format(staged(table)))
        end()
    cursor.execute("SELECT k, JSON_SERIALIZE(JSON_PARSE(j)) FROM t ORDER BY k")
    assert [tuple(row) for row in cursor.fetchall()] == [("plain", '{"n": 1.10}'), ("tab\t \\N \n", None)]


def test_a_manifest_that_is_wrong_undoes_the_transaction(connection: Any, staged: Callable[..., str]) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE t (k VARCHAR(100))")
    connection.commit()
    table = pa.table({"k": ["x"]})
    for url in (staged(table, off=1), f"s3://{BUCKET}/nothing", staged(pa.table({"k": ["x"], "more": ["y"]}))):
        with pytest.raises(redshift_connector.Error):
            cursor.execute(COPY.format(url))
        connection.rollback()
    cursor.execute("SELECT count(*) FROM t")
    assert list(cursor.fetchall()[0]) == [0]


def test_it_says_what_redshift_says_to_a_client_of_postgresql(warehouse_dsn: str) -> None:
    with psycopg.connect(warehouse_dsn) as client:
        assert client.info.parameter_status("server_version") == "8.0.2"
        assert client.execute("SHOW transaction_isolation").fetchone() == ("serializable",)


def test_what_is_quoted_is_left_alone() -> None:
    statement = (
        """CREATE TABLE "SUPER ENCODE zstd" (a VARBYTE(9) ENCODE zstd DEFAULT 'VARBYTE(9)') DISTSTYLE EVEN SORTKEY(a)"""
    )
    wanted = """CREATE TABLE "SUPER ENCODE zstd" (a bytea  DEFAULT 'VARBYTE(9)')  """
    assert in_postgresql(statement) == wanted

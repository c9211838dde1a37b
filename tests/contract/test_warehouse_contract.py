"""What both clients of a warehouse promise, on the Redshift stand-in: transactions, rows, refusals, and the claim of a schema.

There is no server for the Data API: botocore's own client checks and writes each request, and psycopg runs its statements.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import boto3
import psycopg
import pyarrow as pa
import pytest
from botocore.model import OperationModel
from botocore.validate import ParamValidator
from psycopg.conninfo import make_conninfo
from redshift_connector.core import convert_paramstyle

from local_stack.servers.aws import Ministack
from schemas.errors import ConfigurationError, PipelineError, UnavailableError
from schemas.ownership import Owner
from tests.warehouse_fixtures import OWNER, warehouse_config
from warehouse.clients import Client, DataApiClient, WireClient
from warehouse.config import DataApiConfig, RedshiftConfig
from warehouse.errors import StaleError
from warehouse.loader import claimed, prepare
from warehouse.sql import Copies, Registry, probe
from warehouse.staging import staging

type Connect = Callable[..., Client]
"""`connect(user=…, password=…)`; without them as the owner of the database."""


class DataApi:
    """Answers a `redshift-data` client of botocore by running the statements in a database."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._described: dict[str, dict[str, Any]] = {}
        self._rows: dict[str, list[tuple[Any, ...]]] = {}
        self._columns: dict[str, list[str]] = {}

    def client(self) -> Any:
        connect: Any = boto3.client
        client = connect("redshift-data", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="s")
        client.meta.events.register("before-call.redshift-data", self._answer)
        return client

    def _answer(self, model: OperationModel, params: dict[str, Any], **_: object) -> tuple[Any, dict[str, Any]]:
        operations: dict[str, Callable[[Any], dict[str, Any]]] = {
            "BatchExecuteStatement": self._execute,
            "ExecuteStatement": self._query,
            "CancelStatement": lambda _: {"Status": True},
            "DescribeStatement": lambda body: self._described[body["Id"]],
            "GetStatementResult": lambda body: {
                "Records": [list(map(field, row)) for row in self._rows[body["Id"]]],
                "ColumnMetadata": [{"name": name} for name in self._columns.get(body["Id"], ())],
            },
        }
        answer = operations[model.name](json.loads(params["body"]))
        assert model.output_shape is not None
        report = ParamValidator().validate(answer, model.output_shape)
        assert not report.has_errors(), report.generate_report()
        return SimpleNamespace(status_code=HTTPStatus.OK), answer

    def _execute(self, body: dict[str, Any]) -> dict[str, str]:
        name = str(uuid.uuid4())
        subs: list[dict[str, Any]] = []
        described: dict[str, Any] = {"Id": name, "Status": "FINISHED", "SubStatements": subs}
        try:
            with psycopg.connect(self._dsn) as connection:
                for place, statement in enumerate(body["Sqls"], 1):
                    cursor = connection.execute(statement)
                    subs.append({"Id": f"{name}:{place}", "HasResultSet": cursor.description is not None})
                    if cursor.description:
                        self._rows[f"{name}:{place}"] = cursor.fetchall()
        except psycopg.Error as error:
            described |= {"Status": "FAILED", "Error": f"ERROR: {error}"}
        self._described[name] = described
        return {"Id": name}

    def _query(self, body: dict[str, Any]) -> dict[str, str]:
        """Run one statement; its parameters are text, and one that takes long is still under way when it is asked for."""
        name = str(uuid.uuid4())
        values = {bound["name"]: bound["value"] for bound in body.get("Parameters", ())}
        statement, ordered = convert_paramstyle("named", body["Sql"])
        self._described[name] = {"Id": name, "Status": "FINISHED", "HasResultSet": True}
        if "pg_sleep" in statement:
            self._described[name] |= {"Status": "STARTED"}
            return {"Id": name}
        try:
            with psycopg.connect(self._dsn, cursor_factory=psycopg.RawCursor) as connection:
                cursor = connection.execute(statement.encode(), ordered(values))
                self._columns[name] = [column.name for column in cursor.description or ()]
                self._rows[name] = cursor.fetchall()
        except psycopg.Error as error:
            self._described[name] |= {"Status": "FAILED", "Error": f"ERROR: {error} SQLSTATE: {error.sqlstate}"}
        return {"Id": name}


def field(value: Any) -> dict[str, Any]:
    """A value as the Data API writes it."""
    if value is None:
        return {"isNull": True}
    kinds = {bool: "booleanValue", int: "longValue", float: "doubleValue"}
    return {kinds.get(type(value), "stringValue"): value}


@pytest.fixture
def section(warehouse_dsn: str, aws: Ministack) -> dict[str, Any]:
    return warehouse_config(warehouse_dsn, aws)


@pytest.fixture(params=["redshift_connector", "the Data API"])
def connect(request: pytest.FixtureRequest, warehouse_dsn: str, section: dict[str, Any]) -> Iterator[Connect]:
    clients: list[Client] = []

    def open_client(**login: str) -> Client:
        if request.param == "redshift_connector":
            clients.append(WireClient(RedshiftConfig.model_validate(section | login)))
        else:
            place = DataApiConfig(workgroup="desk", database="dev")
            clients.append(DataApiClient(place, DataApi(make_conninfo(warehouse_dsn, **login)).client()))
        return clients[-1]

    yield open_client
    for client in clients:
        client.close()


def test_a_transaction_returns_the_rows_of_its_last_query(connect: Connect) -> None:
    client = connect()
    assert client.run(["SELECT 1", "SELECT 7, 'é', NULL, TRUE", "CREATE TABLE t (a INTEGER)"]) == [(7, "é", None, True)]
    assert client.run(["INSERT INTO t VALUES (3)"]) == []
    client.close()
    assert client.run(["SELECT a FROM t"]) == [(3,)]
    assert client.run(["SELECT a FROM t WHERE a > 3"]) == []


HOSTILE = ["o'brien", "a\\", "100%", ":a", "$1", "'; DROP TABLE t; --", "日本"]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_query_binds_its_values_as_text(connect: Connect, value: str) -> None:
    columns = "CAST(:a AS VARCHAR(99)) AS name, CAST(:b AS BIGINT) + 1 AS n, ':a' AS literal"
    statement = f"SELECT {columns} WHERE 'x' <> '%' AND :a = :a"
    result = connect().query(statement, {"a": value, "b": "9007199254740993"}, 5.0)
    assert result == (("name", "n", "literal"), [(value, 9007199254740994, ":a")])


def test_a_query_that_takes_too_long_is_given_up(connect: Connect) -> None:
    client = connect()
    with pytest.raises(UnavailableError, match="longer than"):
        client.query("SELECT pg_sleep(30) AS a", {}, 0.3)
    assert client.query("SELECT 1 AS a", {}, 5.0) == (("a",), [(1,)])
    with pytest.raises(ConfigurationError):
        client.query("SELECT a FROM nowhere", {}, 5.0)
    assert client.run(["SELECT 2"]) == [(2,)]


def test_a_refused_transaction_leaves_nothing(connect: Connect) -> None:
    client = connect()
    client.run(["CREATE TABLE t (a INTEGER)"])
    with pytest.raises(StaleError):
        client.run(["INSERT INTO t VALUES (1)", "SELECT 1 / COUNT(*) FROM t WHERE a > 1"])
    assert client.run(["SELECT COUNT(*) FROM t"]) == [(0,)]


@pytest.mark.parametrize(
    ("statement", "login", "condition"),
    [
        ("CREATE TABLE taken (secret INTEGER)", {}, "TABLE_TAKEN"),
        ("SELECT * FROM secret", {}, "STORE_REFUSES"),
        ("CREATE SCHEMA secret", {"user": "reader", "password": "reads"}, "MISSING_RIGHTS"),
        ("SELECT 'secret'", {"password": "secret"}, "LOGIN_REFUSED"),
    ],
)
def test_a_refusal_names_its_remedy_and_quotes_nothing(
    connect: Connect, warehouse_dsn: str, statement: str, login: dict[str, str], condition: str
) -> None:
    with psycopg.connect(warehouse_dsn, autocommit=True) as admin:
        admin.execute("CREATE TABLE taken (a INTEGER)")
        admin.execute("CREATE USER reader PASSWORD 'reads'")
        try:
            with pytest.raises(PipelineError) as raised:
                connect(**login).run([statement])
        finally:
            admin.execute("DROP USER reader")
    assert isinstance(raised.value, ConfigurationError)
    assert (raised.value.condition, bool(raised.value.hint)) == (condition, True)
    assert "secret" not in str(raised.value)


def test_staged_rows_are_copied(connect: Connect, section: dict[str, Any]) -> None:
    config = RedshiftConfig.model_validate(section)
    writer = staging(config, f"contract-{uuid.uuid4().hex}")
    manifest = writer.rows(pa.table({"_key": ["a", "b"]}))
    connect().run(probe(Copies(config.iam_role), manifest))
    writer.clear()
    with pytest.raises(PipelineError, match="staged files"):
        connect().run(probe(Copies(config.iam_role), manifest))


def test_of_pipelines_that_claim_a_schema_one_has_it(connect: Connect) -> None:
    client, registry = connect(), Registry("desk")
    for _ in range(2):
        prepare(client, registry)
    assert claimed(client, registry, OWNER) == OWNER
    with ThreadPoolExecutor(2) as pool:
        takers = [Owner("shop", str(number)) for number in range(2)]
        owners = list(pool.map(lambda taker: claimed(connect(), registry, taker, OWNER), takers))
    assert owners[0] == owners[1]
    assert owners[0] in takers
    assert claimed(client, registry, Owner("other", ""), OWNER) == owners[0]

"""The Data API as its service model says, without a server (there is none to be had), and what refusals mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.stub import Stubber
from pydantic import ValidationError

from schemas.errors import ConfigurationError, PipelineError, UnavailableError
from warehouse.clients import DataApiClient, open_client
from warehouse.config import DataApiConfig, RedshiftConfig
from warehouse.errors import ContendedError, StaleError, refusal

PLACE = {"Database": "dev", "WorkgroupName": "desk", "SecretArn": "arn:aws:secretsmanager:eu-central-1:1:secret:s"}
DIRECT = {"type": "redshift", "host": "h", "database": "d", "user": "u", "password": "p", "staging": "s3://bucket/a/b"}


def stubbed(**more: Any) -> tuple[DataApiClient, Stubber]:
    """The client over botocore's own validation of what is asked and answered."""
    connect: Any = boto3.client
    client = connect("redshift-data", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="s")
    place: dict[str, Any] = {"workgroup": "desk", "database": "dev", "secret_arn": PLACE["SecretArn"]}
    return DataApiClient(DataApiConfig.model_validate(place | more), client), Stubber(client)


def described(status: str, **more: Any) -> dict[str, Any]:
    subs = [{"Id": f"q:{at}", "HasResultSet": at % 2 == 1, "Status": status} for at in (1, 2, 3, 4)]
    return {"Id": "q", "Status": status, "SubStatements": subs} | more


def test_a_transaction_is_one_batch_that_is_awaited_and_read() -> None:
    client, stub = stubbed()
    statements = ["SELECT …", "COPY k …", "SELECT …", "DROP TABLE k"]
    asked = PLACE | {"Sqls": statements, "StatementName": "ragstream"}
    stub.add_response("batch_execute_statement", {"Id": "q"}, asked)
    stub.add_response("describe_statement", described("STARTED"), {"Id": "q"})
    stub.add_response("describe_statement", described("FINISHED"), {"Id": "q"})
    column = {"name": "a", "typeName": "varchar"}
    first: dict[str, Any] = {"Records": [[{"stringValue": "key"}, {"longValue": 7}]], "ColumnMetadata": [column]}
    stub.add_response("get_statement_result", first | {"NextToken": "more"}, {"Id": "q:3"})
    second = {"Records": [[{"isNull": True}, {"booleanValue": True}]]}
    stub.add_response("get_statement_result", second, {"Id": "q:3", "NextToken": "more"})
    with stub:
        assert client.run(statements) == [("key", 7), (None, True)]
    stub.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("ERROR: Divide by zero", StaleError),
        ("ERROR: 1023\n  Detail: Serializable isolation violation on table - 123", ContendedError),
        ("ERROR: permission denied for schema desk", ConfigurationError),
        ("ERROR: Problem reading manifest file - S3ServiceException:Access Denied,Status 403", ConfigurationError),
        ("ERROR: S3ServiceException:The specified key does not exist.,Status 404,Error NoSuchKey", UnavailableError),
        ("ERROR: something else with a row's secret in it", ConfigurationError),
    ],
)
def test_batch_that_failed_is_judged_by_its_text_which_is_not_told(error: str, kind: type[PipelineError]) -> None:
    client, stub = stubbed()
    stub.add_response("batch_execute_statement", {"Id": "q"})
    stub.add_response("describe_statement", described("FAILED", Error=error), {"Id": "q"})
    with stub, pytest.raises(kind) as raised:
        client.run(["SELECT 1"])
    assert type(raised.value) is kind
    assert "secret" not in str(raised.value)


def test_a_transaction_that_takes_too_long_is_cancelled() -> None:
    client, stub = stubbed(timeout_seconds=1e-9)
    stub.add_response("batch_execute_statement", {"Id": "q"})
    stub.add_response("describe_statement", described("STARTED"))
    stub.add_response("cancel_statement", {"Status": True}, {"Id": "q"})
    with stub, pytest.raises(UnavailableError, match="longer"):
        client.run(["SELECT 1"])


@pytest.mark.parametrize(
    ("code", "kind"),
    [("ValidationException", ConfigurationError), ("ActiveStatementsExceededException", UnavailableError)],
)
def test_a_request_that_is_refused_is_mended_or_tried_again(code: str, kind: type[PipelineError]) -> None:
    client, stub = stubbed()
    stub.add_client_error("batch_execute_statement", code)
    with stub, pytest.raises(kind, match=code) as raised:
        client.run(["SELECT 1"])
    assert "*" not in raised.value.hint, "a right to everything is not recommended"


@pytest.mark.parametrize(
    ("state", "kind", "condition"),
    [
        ("22012", StaleError, "STALE"),
        ("40001", ContendedError, "CONTENDED"),
        ("42501", ConfigurationError, "MISSING_RIGHTS"),
        ("28P01", ConfigurationError, "LOGIN_REFUSED"),
        ("42P07", ConfigurationError, "TABLE_TAKEN"),
        ("57P01", UnavailableError, "UNAVAILABLE"),
        ("42601", ConfigurationError, "STORE_REFUSES"),
    ],
)
def test_a_refusal_is_judged_by_its_state(state: str, kind: type[PipelineError], condition: str) -> None:
    error = refusal("h:5439", "", state)
    assert (type(error), error.condition) == (kind, condition)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"load_every": "30s"}, "greater than or equal to 60"),
        ({"host": None}, "or `data_api`"),
        ({"data_api": {"workgroup": "w", "database": "d"}}, "not both"),
        ({"staging": "s3://bucket/it's"}, "pattern"),
        ({"iam_role": "arn:aws:iam::1:role/x' --"}, "pattern"),
        ({"schema": "No Schema"}, "pattern"),
        ({"names": {"public.t": "Upper"}}, "lower case"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RedshiftConfig.model_validate(DIRECT | change)


def test_the_way_in_is_chosen_by_the_configuration() -> None:
    assert RedshiftConfig.model_validate(DIRECT | {"load_every": "2m"}).load_every == 120
    through = {"type": "redshift", "staging": "s3://bucket", "region": "eu-central-1", "schema": "desk"}
    config = RedshiftConfig.model_validate(through | {"data_api": {"cluster": "c", "database": "d"}})
    assert isinstance(open_client(config), DataApiClient)
    assert "password" not in repr(RedshiftConfig.model_validate(DIRECT | {"password": "password"}).password)


def test_the_example_of_the_documents_is_a_configuration() -> None:
    example = (
        (Path(__file__).resolve().parents[2] / "docs/configuration.md").read_text().partition("```yaml\nwarehouse:")[2]
    )
    config = RedshiftConfig.model_validate(yaml.safe_load("warehouse:" + example.partition("```")[0])["warehouse"])
    assert (config.load_every, config.schema_name) == (60, "desk")

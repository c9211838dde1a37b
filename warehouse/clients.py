"""Two ways to run a transaction in Redshift: a connection by redshift_connector, and the Data API."""

from __future__ import annotations

import contextlib
import ssl
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from schemas.errors import ConfigurationError, PipelineError, UnavailableError
from warehouse.errors import STATEMENT_TIMEOUT, refusal
from warehouse.staging import access_of, client_of

if TYPE_CHECKING:
    from warehouse.config import DataApiConfig, RedshiftConfig

type Rows = list[tuple[Any, ...]]

_CONNECT_SECONDS = 10
_GRACE_SECONDS = 2.0
"""How much later than its deadline a server may say that it has cancelled a statement."""
_POLL_SECONDS = 0.2
_LONGEST_POLL_SECONDS = 2.0


class Result(NamedTuple):
    """The columns and the rows of a query."""

    columns: tuple[str, ...]
    rows: Rows


class Client(Protocol):
    """Runs transactions; what the warehouse refuses is raised as the error that `warehouse.errors.refusal` makes of it."""

    def run(self, statements: Sequence[str]) -> Rows:
        """Run statements in one transaction, all or none, and return the rows of the last one that gives any."""

    def query(self, statement: str, values: Mapping[str, str], seconds: float) -> Result:
        """Run one SELECT with `:name` parameters bound as text; raises UnavailableError when it takes longer than that."""

    def close(self) -> None:
        """Let go of the connection; the next transaction opens another."""


def open_client(config: RedshiftConfig) -> Client:
    """The client a configuration asks for; nothing is opened yet."""
    if config.data_api is not None:
        return DataApiClient(config.data_api, client_of(access_of(config), "redshift-data"))
    return WireClient(config)


class WireClient:
    """A connection with redshift_connector."""

    def __init__(self, config: RedshiftConfig) -> None:
        self._config = config
        self._connection: Any = None
        self._where = f"{config.host}:{config.port}"

    def run(self, statements: Sequence[str]) -> Rows:
        """Run a transaction; a connection that broke is dropped."""
        with self._translated():
            if self._connection is None:
                self._connection = self._connected()
            cursor = self._connection.cursor()
            rows: Rows = []
            for statement in statements:
                self._execute(cursor, statement)
                if cursor.description:
                    rows = [tuple(row) for row in cursor.fetchall()]
            self._connection.commit()
            return rows

    def query(self, statement: str, values: Mapping[str, str], seconds: float) -> Result:
        """Run a SELECT in a transaction that is undone; the server cancels it at its deadline."""
        with self._translated():
            if self._connection is None:
                self._connection = self._connected(min(max(seconds, 1.0), _CONNECT_SECONDS))
            self._connection._usock.settimeout(seconds + _GRACE_SECONDS)  # noqa: SLF001 - a server that hangs
            cursor = self._connection.cursor()
            self._execute(cursor, f"SET statement_timeout TO {round(seconds * 1000)}")
            cursor.paramstyle = "named"
            cursor.execute(statement, dict(values))
            columns = tuple(str(column[0]) for column in cursor.description)
            rows = [tuple(row) for row in cursor.fetchall()]
            self._connection.rollback()
            return Result(columns, rows)

    def close(self) -> None:
        """Close the connection, whatever state it is in; it keeps every statement's text until then."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()

    @staticmethod
    def _execute(cursor: Any, statement: str) -> None:
        cursor.execute(statement)

    def _connected(self, within: float = _CONNECT_SECONDS) -> Any:
        import redshift_connector

        config = self._config
        connection = redshift_connector.connect(
            host=config.host, port=config.port, database=config.database, user=config.user,
            password=config.password.get_secret_value() if config.password else None, ssl=config.ssl, sslmode="verify-full",
            timeout=within, max_prepared_statements=0, application_name="ragstream",
            tcp_keepalive_idle=30, tcp_keepalive_interval=10, tcp_keepalive_count=3,
        )  # fmt: skip
        connection._usock.settimeout(None)  # noqa: SLF001 - the time-out is for connecting: a COPY takes as long as it takes
        return connection

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        from redshift_connector.error import Error, InterfaceError

        try:
            yield
        except Error as error:
            self.close()  # ends its transaction
            fields = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
            if fields or not isinstance(error, InterfaceError):
                raise refusal(self._where, str(fields.get("M", "")), str(fields.get("C", ""))) from None
            raise self._away(error) from None
        except (OSError, ValueError, TypeError, AttributeError, struct.error) as error:  # where a socket broke
            self.close()
            raise self._away(error) from None

    def _away(self, error: Exception) -> PipelineError:
        causes = (error, *error.args)  # the driver keeps the socket's own error in there
        if "Server refuses SSL" in causes or any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
            return ConfigurationError(
                f"warehouse: {self._where} has no TLS, or its certificate is not of that name or of an authority that is known",
                condition="SERVER_UNVERIFIED", hint="give warehouse.host as the cluster's endpoint names it",
            )  # fmt: skip
        return UnavailableError(
            f"warehouse: {self._where} does not answer ({type(error).__name__})",
            hint="check warehouse.host and warehouse.port, the security group, and that the cluster is not paused",
        )


class DataApiClient:
    """The Data API: a batch of statements is one transaction, which is polled until it ends."""

    def __init__(self, config: DataApiConfig, client: Any) -> None:
        self._client = client
        self._timeout = config.timeout_seconds
        place = {"ClusterIdentifier": config.cluster, "WorkgroupName": config.workgroup, "SecretArn": config.secret_arn}
        self._place = {"Database": config.database} | {name: value for name, value in place.items() if value}
        self._where = f"the Data API of {config.cluster or config.workgroup}"

    def run(self, statements: Sequence[str]) -> Rows:
        """Submit a transaction, wait for its end, and read the rows of the last statement that has any."""
        with self._translated():
            submitted = self._client.batch_execute_statement(
                Sqls=list(statements), StatementName="ragstream", **self._place
            )
            ended = self._awaited(submitted["Id"], self._timeout)
            with_rows = [sub["Id"] for sub in ended["SubStatements"] if sub.get("HasResultSet")]
            return self._result(with_rows[-1]).rows if with_rows else []

    def query(self, statement: str, values: Mapping[str, str], seconds: float) -> Result:
        """Submit a SELECT and read its rows; it is cancelled at its deadline."""
        bound = [{"name": name, "value": value} for name, value in values.items()]
        with self._translated():
            submitted = self._client.execute_statement(
                Sql=statement, StatementName="ragstream", **({"Parameters": bound} if bound else {}), **self._place
            )
            self._awaited(submitted["Id"], seconds)
            return self._result(submitted["Id"])

    def close(self) -> None:
        """There is nothing to close."""

    def _awaited(self, identity: str, seconds: float) -> dict[str, Any]:
        until, pause = time.monotonic() + seconds, _POLL_SECONDS
        while True:
            described: dict[str, Any] = self._client.describe_statement(Id=identity)
            if described["Status"] == "FINISHED":
                return described
            if described["Status"] in {"FAILED", "ABORTED"}:
                raise refusal(self._where, _errors(described))
            if time.monotonic() > until:
                self._client.cancel_statement(Id=identity)
                raise UnavailableError(
                    f"warehouse: a transaction took longer than {seconds:.0f} s", condition=STATEMENT_TIMEOUT
                )
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)

    def _result(self, identity: str) -> Result:
        rows: Rows = []
        more: dict[str, str] = {}
        while True:
            page = self._client.get_statement_result(Id=identity, **more)
            rows += [tuple(map(_value, record)) for record in page["Records"]]
            if not page.get("NextToken"):
                return Result(tuple(column["name"] for column in page.get("ColumnMetadata", ())), rows)
            more = {"NextToken": page["NextToken"]}

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in {"ValidationException", "ResourceNotFoundException", "AccessDeniedException"}:
                raise ConfigurationError(
                    f"warehouse: {self._where} refuses the request ({code})",
                    condition="DATA_API_REFUSED",
                    hint="check warehouse.data_api, and grant the role redshift-data:BatchExecuteStatement (for facts "
                    "ExecuteStatement) on it, redshift-data:DescribeStatement, GetStatementResult and CancelStatement on its own "
                    "statements, and secretsmanager:GetSecretValue on the secret, or without one "
                    "redshift:GetClusterCredentialsWithIAM (serverless: redshift-serverless:GetCredentials)",
                ) from None
            raise UnavailableError(f"warehouse: {self._where} does not answer ({code})") from None
        except BotoCoreError as error:
            raise UnavailableError(f"warehouse: {self._where} does not answer ({type(error).__name__})") from None


def _errors(described: dict[str, Any]) -> str:
    subs = (sub.get("Error", "") for sub in described.get("SubStatements", ()))
    return "\n".join([described.get("Error", ""), *subs])


def _value(field: dict[str, Any]) -> Any:
    return None if field.get("isNull") else next(iter(field.values()))

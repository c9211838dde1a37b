"""The DynamoDB client: one table, its errors as ours, one retry layer (botocore's standard mode)."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from schemas.errors import ConfigurationError, PipelineError, UnavailableError

if TYPE_CHECKING:
    from boto3 import Session
    from mypy_boto3_dynamodb.client import DynamoDBClient

    from memory.dynamodb.config import DynamoDBMemoryConfig

type Attributes = dict[str, Any]
"""An item in DynamoDB's JSON: `{"pk": {"S": "…"}}`."""

_SESSION_LOCK = threading.Lock()
_ATTEMPTS = 3
"""Of a request, with botocore's exponential backoff."""
_THROTTLES = frozenset({
    "ProvisionedThroughputExceededException", "RequestLimitExceeded", "ThrottlingException", "ThrottlingError",
    "ProvisionedThroughputExceeded", "LimitExceededException",
})  # fmt: skip
_CONFLICTS = frozenset({"TransactionConflict", "TransactionConflictException", "TransactionInProgressException"})
_SILENCES = frozenset({"InternalServerError", "ServiceUnavailable"})
_MISSING_RIGHTS = frozenset({
    "AccessDeniedException", "UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException",
    "IncompleteSignatureException", "MissingAuthenticationTokenException",
})  # fmt: skip
RIGHTS = (
    "dynamodb: DescribeTable, DescribeTimeToLive, Query, GetItem, PutItem, UpdateItem, DeleteItem, BatchWriteItem, "
    "ConditionCheckItem on the table; CreateTable and UpdateTimeToLive to create it"
)


class Refused(Exception):  # noqa: N818 - an answer, no error
    """A condition of a write did not hold."""


class Table:
    """One table, opened on first use. Raises errors of ours alone, without an item's content (I14)."""

    def __init__(self, config: DynamoDBMemoryConfig) -> None:
        self._config = config
        self._opened: DynamoDBClient | None = None
        self._opening = threading.Lock()

    @property
    def client(self) -> DynamoDBClient:
        """Boto3's client, for use inside `translated`."""
        with self._opening:
            if self._opened is None:
                self._opened = _opened(self._config)
            return self._opened

    def get(self, key: Attributes) -> Attributes | None:
        """An item, read consistently."""
        with self.translated():
            return self.client.get_item(TableName=self._config.table, Key=key, ConsistentRead=True).get("Item")

    def query(
        self, partition: str, prefix: str, *, most: int = 0, newest: bool = False, names: Sequence[str] = ()
    ) -> Iterator[Attributes]:
        """Items of a partition whose sort key has a prefix, by sort key, at most `most` (0: all).

        With `names`, only these attributes.
        """
        request: dict[str, Any] = {
            "TableName": self._config.table, "ConsistentRead": True, "ScanIndexForward": not newest,
            "KeyConditionExpression": "pk = :p AND begins_with(sk, :s)",
            "ExpressionAttributeValues": {":p": {"S": partition}, ":s": {"S": prefix}},
        }  # fmt: skip
        if names:
            request["ProjectionExpression"] = ", ".join(names)
        left = most
        while True:
            if most:
                request["Limit"] = left
            with self.translated():
                page = self.client.query(**request)
            yield from page["Items"]
            left -= len(page["Items"])
            if "LastEvaluatedKey" not in page or (most and left <= 0):
                return
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def transact(self, *writes: tuple[str, dict[str, Any]]) -> None:
        """Run writes (`Put`, `Delete`, `ConditionCheck`…), several as one transaction.

        Raises:
            Refused: a condition does not hold, or another transaction writes the same items now.
        """
        if len(writes) == 1:
            kind, request = writes[0]
            with self.translated():
                put, delete = (self.client.put_item, self.client.delete_item)
                single: Any = put if kind == "Put" else delete
                single(TableName=self._config.table, **request)
            return
        items: Any = [{kind: {"TableName": self._config.table, **request}} for kind, request in writes]
        with self.translated():
            self.client.transact_write_items(TransactItems=items)

    def delete(self, keys: Sequence[Attributes]) -> None:
        """Delete items, 25 a request (DynamoDB, BatchWriteItem).

        Raises:
            UnavailableError: some are left after all tries.
        """
        for at in range(0, len(keys), 25):
            waiting: Any = {self._config.table: [{"DeleteRequest": {"Key": key}} for key in keys[at : at + 25]]}
            for _ in range(_ATTEMPTS):
                with self.translated():
                    waiting = self.client.batch_write_item(RequestItems=waiting)["UnprocessedItems"]
                if not waiting:
                    break
            else:
                raise _throttled("BatchWriteItem")

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn botocore's exceptions into ours, and a condition that does not hold into Refused."""
        from botocore import exceptions

        try:
            yield
        except exceptions.ClientError as error:
            raise self._of(error) from None
        except (exceptions.ConnectionError, exceptions.HTTPClientError, exceptions.CredentialRetrievalError) as error:
            raise UnavailableError(
                f"memory: DynamoDB does not answer ({type(error).__name__})", condition="MEMORY_UNAVAILABLE",
                hint="check memory.endpoint_url, memory.region and the network route",
            ) from None  # fmt: skip
        except exceptions.BotoCoreError as error:
            raise self._unusable(type(error).__name__) from None

    def close(self) -> None:
        """Close connections; the next call opens others."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _of(self, error: Any) -> Exception:
        code = error.response["Error"]["Code"]
        reasons = [reason.get("Code") for reason in error.response.get("CancellationReasons", ())]
        codes = {code, *reasons}
        if code == "ConditionalCheckFailedException" or "ConditionalCheckFailed" in codes:
            return Refused()
        if codes & _CONFLICTS:  # another request changes the same items now
            return Refused()
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if codes & _THROTTLES:
            return _throttled(code)
        if status >= 500 or codes & _SILENCES:
            return UnavailableError(
                f"memory: DynamoDB cannot answer now ({code})", condition="MEMORY_UNAVAILABLE", hint="ask again"
            )
        return self._unusable(code)

    def _unusable(self, code: str) -> PipelineError:
        table = self._config.table
        if code == "ResourceNotFoundException":
            return ConfigurationError(
                f"memory: DynamoDB has no table {table} in {self._config.region}", condition="MEMORY_MISSING",
                hint="run `ragstream check CONFIG`, which creates it, or correct memory.table and memory.region",
            )  # fmt: skip
        if code in _MISSING_RIGHTS:
            return ConfigurationError(
                f"memory: DynamoDB refuses a right on the table {table} ({code})",
                condition="MISSING_RIGHTS",
                hint=f"needed: {RIGHTS}",
            )
        return ConfigurationError(
            f"memory: DynamoDB refuses a request ({code})", condition="MEMORY_REFUSES",
            hint=f"the table {table} has the keys pk (HASH) and sk (RANGE), both strings; check memory.region, the credentials",
        )  # fmt: skip


def _throttled(code: str) -> UnavailableError:
    return UnavailableError(
        f"memory: DynamoDB throttles ({code})",
        condition="MEMORY_THROTTLED",
        hint="ask again; raise the table's or the account's limits",
    )


def _opened(config: DynamoDBMemoryConfig) -> DynamoDBClient:
    from botocore.config import Config

    settings = Config(
        connect_timeout=config.timeout_seconds,
        read_timeout=config.timeout_seconds,
        max_pool_connections=16,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
    )
    with _SESSION_LOCK:
        return _session().client("dynamodb", config=settings, **config.client_options())


@functools.cache
def _session() -> Session:
    """The process's session: it reads the service's model once. Making a client of it is not thread-safe."""
    import boto3

    return boto3.Session()

"""Where a budget's state lives: a file of one machine, or an item of a DynamoDB table. One change at a time is applied."""

from __future__ import annotations

import fcntl
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, assert_never
from urllib.parse import urlsplit

from embeddings.budget.config import DynamoDBLedgerConfig, FileLedgerConfig, LedgerConfig
from embeddings.budget.reservations import State
from embeddings.clients import client_of
from schemas.errors import ConfigurationError, UnavailableError
from schemas.transport import is_this_machine

MOST_ATTEMPTS = 50
"""Of a change of the item, each after another process has changed it."""


class Ledger(Protocol):
    """Holds a state for all processes."""

    def change[T](self, decide: Callable[[State], tuple[State, T]]) -> T:
        """Apply a decision to the state that all others have seen; it may be made again on a newer state.

        Raises `UnavailableError` where the state cannot be reached, `ConfigurationError` where no retry can help.
        """

    def read(self) -> State:
        """Return the state; raises as `change`."""


class FileLedger:
    """A state in a file, replaced as a whole while a lock of the kernel beside it is held: a kill leaves one of the two."""

    def __init__(self, path: Path, section: str = "embedding") -> None:
        """`section` of the configuration, for messages."""
        self._path = path
        self._section = section
        self._lock = threading.Lock()

    def change[T](self, decide: Callable[[State], tuple[State, T]]) -> T:
        """Apply a decision; see `Ledger`."""
        try:
            with self._lock, self._locked():
                state, decision = decide(self._state())
                fresh = self._path.with_name(f"{self._path.name}.new")
                fresh.write_text(json.dumps(asdict(state)))
                fresh.replace(self._path)
                return decision
        except OSError as error:
            raise _unusable(self._section, f"the file {self._path} cannot be written: {error.strerror}") from None

    def read(self) -> State:
        """Return the state."""
        try:
            return self._state()
        except OSError as error:
            raise _unusable(self._section, f"the file {self._path} cannot be read: {error.strerror}") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path.with_name(f"{self._path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _state(self) -> State:
        try:
            return State(**json.loads(self._path.read_text()))
        except FileNotFoundError:
            return State()
        except (ValueError, TypeError):
            raise _unusable(
                self._section, f"the file {self._path} holds something else than a budget's state"
            ) from None


class DynamoDBLedger:
    """A state in an item, replaced on the condition that nobody has replaced it since it was read."""

    def __init__(self, config: DynamoDBLedgerConfig, section: str = "embedding") -> None:
        """`section` of the configuration, for messages."""
        self._config = config
        self._section = section

    def change[T](self, decide: Callable[[State], tuple[State, T]]) -> T:
        """Apply a decision; see `Ledger`."""
        for attempt in range(MOST_ATTEMPTS):
            version, stored = self._item()
            state, decision = decide(stored)
            if self._put(version, state):
                return decision
            time.sleep(random.random() * min(0.2, 0.005 * 2**attempt))  # noqa: S311 - spreads processes
        raise UnavailableError("the budget's item changes too often", condition="BUDGET_CONTENDED")

    def read(self) -> State:
        """Return the state."""
        return self._item()[1]

    @cached_property
    def _client(self) -> Any:
        from botocore import UNSIGNED

        host = urlsplit(self._config.endpoint_url or "").hostname
        settings: dict[str, Any] = {"connect_timeout": 2, "read_timeout": 5, "retries": {"total_max_attempts": 2}}
        if host and is_this_machine(host) and not self._config.access_key:
            settings["signature_version"] = UNSIGNED
        return client_of(self._config, "dynamodb", settings)

    def _item(self) -> tuple[int, State]:
        """The item's version, 0 where there is none, and its state."""
        with _requests(self._section):
            response = self._client.get_item(
                TableName=self._config.table, Key={"name": {"S": self._config.name}}, ConsistentRead=True
            )
        item = response.get("Item")
        if item is None:
            return 0, State()
        numbers = {name: float(Decimal(item[name]["N"])) for name in ("requests_due", "tokens_due", "dollars")}
        return int(item["version"]["N"]), State(day=int(item["day"]["N"]), **numbers)

    def _put(self, version: int, state: State) -> bool:
        from botocore.exceptions import ClientError

        item = {name: {"N": repr(value)} for name, value in asdict(state).items()}
        item |= {"name": {"S": self._config.name}, "version": {"N": str(version + 1)}}
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(#n)"}
        names = {"#n": "name"}
        if version:
            condition = {
                "ConditionExpression": "#n = :version", "ExpressionAttributeValues": {":version": {"N": str(version)}},
            }  # fmt: skip
            names = {"#n": "version"}
        try:
            with _requests(self._section, conditional=True):
                self._client.put_item(
                    TableName=self._config.table, Item=item, ExpressionAttributeNames=names, **condition
                )
        except ClientError:
            return False
        return True


def open_ledger(config: LedgerConfig, section: str) -> Ledger:
    """The ledger of a configuration; it connects on first use."""
    match config:
        case FileLedgerConfig():
            return FileLedger(config.path, section)
        case DynamoDBLedgerConfig():
            return DynamoDBLedger(config, section)
        case _:
            assert_never(config)


@contextmanager
def _requests(section: str, *, conditional: bool = False) -> Iterator[None]:
    """Turn botocore's exceptions into ours; a condition that did not hold is left as it is."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        if conditional and code == "ConditionalCheckFailedException":
            raise
        if status >= 500 or "Throughput" in code or "Throttling" in code or "LimitExceeded" in code:
            raise UnavailableError(f"the budget's table does not answer: {code}", condition="BUDGET_AWAY") from None
        raise _unusable(section, f"the table cannot be used: {code}") from None
    except BotoCoreError as error:
        raise UnavailableError(
            f"the budget's table does not answer: {type(error).__name__}", condition="BUDGET_AWAY"
        ) from None


def _unusable(section: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{section}.budget.ledger: {what}",
        condition="BUDGET_UNUSABLE",
        hint="name a file that this user may write, or a DynamoDB table with the partition key `name` and the rights to it",
    )

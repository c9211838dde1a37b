"""Every memory, for the suites that hold all of them to one contract: how it is opened, made to fail, and looked into."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import valkey
from pydantic import TypeAdapter

from local_stack.faults.aws import AwsFaultProxy
from local_stack.servers.aws import Ministack
from local_stack.servers.memorydb import MemoryDB
from local_stack.service import Service
from local_stack.standins.documentdb.server import DocumentDB
from memory import MemoryConfig, open_store
from memory.conversations import Conversations
from memory.feedback import Feedback
from memory.profiles import Profiles
from memory.protocol import MemoryStore

PROFILE: dict[str, Any] = {
    "language": {"type": "text", "choices": ["en", "de"]},
    "company": {"type": "text", "max_length": 40, "description": "where the user works"},
    "hubs": {"type": "integer", "minimum": 0, "maximum": 500},
    "share": {"type": "number"},
    "admin": {"type": "boolean"},
}
SETTINGS: dict[str, Any] = {
    "ttl": 3600, "turn_timeout": 30, "busy_timeout": 0.2, "timeout_seconds": 2.0, "profile": PROFILE,
}  # fmt: skip
WRITES_FAIL = 1000
"""Requests that a full memory refuses: more than a test sends."""


@dataclass
class Clock:
    """Seconds since the epoch, moved by hand."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class Memory:
    """One memory of a test."""

    server: Service
    members: dict[str, Any]
    """Its configuration but for `SETTINGS`."""
    everything: Callable[[], str]
    """All that is stored, as one text."""
    full: Callable[[], AbstractContextManager[object]]
    """A context in which it refuses writes, as one that is full or throttles."""
    clock: Clock = field(default_factory=Clock)
    _opened: dict[str, MemoryStore] = field(default_factory=dict)
    """By the changes of its settings."""

    def written(self, **changes: Any) -> dict[str, Any]:
        """The section of a configuration file."""
        return self.members | SETTINGS | changes

    def config(self, **changes: Any) -> MemoryConfig:
        adapter: TypeAdapter[MemoryConfig] = TypeAdapter(MemoryConfig)
        return adapter.validate_python(self.written(**changes))

    def store(self, **changes: Any) -> MemoryStore:
        """One store for each change of the settings: stores keep nothing but their connections."""
        settings = json.dumps(changes, sort_keys=True)
        if settings not in self._opened:
            self._opened[settings] = open_store(self.config(**changes))
        return self._opened[settings]

    def conversations(self, **changes: Any) -> Conversations:
        return Conversations(self.store(**changes), self.config(**changes), self.clock)

    def feedback(self, **changes: Any) -> Feedback:
        return Feedback(self.store(**changes), self.clock)

    def profiles(self, **changes: Any) -> Profiles:
        return Profiles(self.store(**changes), self.config(**changes))

    def close(self) -> None:
        for store in self._opened.values():
            store.close()


def dynamodb_memory(server: Ministack, proxy: AwsFaultProxy, table: str) -> Memory:
    client = server.client("dynamodb")

    @contextmanager
    def full() -> Iterator[None]:
        for operation in ("PutItem", "TransactWriteItems"):
            proxy.throttle(operation, WRITES_FAIL)
        yield
        proxy.heal()

    members = {"type": "dynamodb", "table": table, **server.endpoint, "endpoint_url": proxy.endpoint_url}
    return Memory(server, members, lambda: json.dumps(client.scan(TableName=table)["Items"]), full)


def documentdb_memory(server: DocumentDB, database: str) -> Memory:
    def everything() -> str:
        with server.client() as client:
            return str(list(client[database]["ragstream_memory"].find()))

    @contextmanager
    def full() -> Iterator[None]:
        point = {"configureFailPoint": "failCommand", "mode": {"times": WRITES_FAIL}}
        with server.client() as client:
            client.admin.command({**point, "data": {"failCommands": ["insert", "update"], "errorCode": 16500}})
            yield
            client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})

    return Memory(server, {"type": "documentdb", "uri": server.endpoint["uri"], "database": database}, everything, full)


def memorydb_memory(server: MemoryDB, prefix: str) -> Memory:
    def connected() -> valkey.Valkey:
        return valkey.Valkey(host="127.0.0.1", port=server.port, decode_responses=True)

    def everything() -> str:
        with connected() as client:
            keys = sorted(client.scan_iter(f"{prefix}:*"))
            return str([(k, client.get(k) if client.type(k) == "string" else client.hgetall(k)) for k in keys])

    @contextmanager
    def full() -> Iterator[None]:
        with connected() as client:
            client.config_set("maxmemory", 1)
            yield
            client.config_set("maxmemory", 0)

    return Memory(server, {"type": "memorydb", "url": server.endpoint["url"], "prefix": prefix}, everything, full)

"""Injects AWS's errors: a proxy that answers calls with them, or enforces the read limit of a Kinesis shard.

Before a server without operations, such as OpenSearch, an operation is the method of a request. No local endpoint throttles
by itself. `faults.tcp.FaultProxy` breaks connections, also before this proxy.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from local_stack.faults.http_proxy import HttpProxy

READS_PER_SECOND = 5
"""GetRecords calls that one shard answers in a second (Amazon Kinesis Data Streams, quotas)."""

_DROPPED_HEADERS = {"content-length", "content-encoding", "transfer-encoding", "connection", "date", "server", "host"}
_MESSAGE = "injected by the local stack"


@dataclass
class _Fault:
    code: str
    status: int
    left: int


@dataclass
class _Limit:
    """By iterator its shard, and by shard the times of its reads in the last second."""

    shards: dict[str, str] = field(default_factory=dict)
    reads: dict[str, deque[float]] = field(default_factory=dict)

    def allows(self, iterator: str) -> bool:
        """Count a read, unless its shard has reached the limit in the last second."""
        times = self.reads.setdefault(self.shards.get(iterator, iterator), deque())
        now = time.monotonic()
        while times and now - times[0] >= 1.0:
            times.popleft()
        if len(times) >= READS_PER_SECOND:
            return False
        times.append(now)
        return True

    def learn(self, request: dict[str, Any], answer: dict[str, Any]) -> None:
        """Store the shard of a returned iterator."""
        used = request.get("ShardIterator", "")
        shard = self.shards.pop(used, used) if used else f"{request.get('StreamName')}/{request.get('ShardId')}"
        returned = answer.get("NextShardIterator") or answer.get("ShardIterator")
        if returned:
            self.shards[returned] = shard


class AwsFaultProxy(HttpProxy):
    """Forwards every call to a local AWS endpoint, except those for which an error is set."""

    def __init__(self, target_url: str) -> None:
        """Take the endpoint's URL; no fault is set."""
        super().__init__(target_url)
        self.calls: dict[str, int] = {}
        """Calls received since the start, by operation."""
        self.headers: Mapping[str, str] = {}
        """Of the newest call."""
        self._faults: dict[str, _Fault] = {}
        self._limit: _Limit | None = None

    def fail(self, operation: str, code: str, *, times: int = 1, status: int = 400) -> None:
        """Answer the next calls of an operation (`GetRecords`, `*` for all) with an error of this code."""
        self._faults[operation] = _Fault(code, status, times)

    def throttle(self, operation: str, times: int = 1) -> None:
        """Answer as Kinesis does above a shard's throughput."""
        self.fail(operation, "ProvisionedThroughputExceededException", times=times)

    def expire_iterators(self, times: int = 1) -> None:
        """Answer reads as if their iterator were older than five minutes."""
        self.fail("GetRecords", "ExpiredIteratorException", times=times)

    def limit_reads(self) -> None:
        """Limit the reads of each shard to `READS_PER_SECOND`, as Kinesis does."""
        self._limit = self._limit or _Limit()

    def heal(self) -> None:
        """Remove all faults and limits."""
        self._faults.clear()
        self._limit = None

    async def _answer(self, request: web.Request) -> web.Response:
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2] or request.method
        self.calls[operation] = self.calls.get(operation, 0) + 1
        self.headers = request.headers
        body = await request.read()
        read = json.loads(body) if self._limit is not None and operation in {"GetRecords", "GetShardIterator"} else {}
        fault = self._faults.get(operation) or self._faults.get("*")
        if fault is not None and fault.left > 0:
            fault.left -= 1
            return _error(fault.code, fault.status)
        if self._limit is not None and operation == "GetRecords" and not self._limit.allows(read["ShardIterator"]):
            return _error("ProvisionedThroughputExceededException", 400)
        response = await self._forward(request, body, _DROPPED_HEADERS)
        if read and response.status < 400 and self._limit is not None:
            self._limit.learn(read, json.loads(response.body))
        return web.Response(status=response.status, body=response.body, headers=response.headers)


def _error(code: str, status: int) -> web.Response:
    body = json.dumps({"__type": code, "message": _MESSAGE})
    return web.Response(status=status, text=body, content_type="application/x-amz-json-1.1")

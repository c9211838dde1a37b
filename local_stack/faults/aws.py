"""Faults of AWS's kind on demand: a proxy that answers calls with AWS's own errors, or holds a stream to its read limit.

Before a server that has no operations, such as OpenSearch, an operation is the method of a request.

None of the local endpoints throttles. Connections are broken by `faults.FaultProxy`, also in front of this one.
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
    """Which shard an iterator belongs to, and when each shard was read in the last second."""

    shards: dict[str, str] = field(default_factory=dict)
    reads: dict[str, deque[float]] = field(default_factory=dict)

    def allows(self, iterator: str) -> bool:
        """Count a read, unless its shard has had all of this second's."""
        times = self.reads.setdefault(self.shards.get(iterator, iterator), deque())
        now = time.monotonic()
        while times and now - times[0] >= 1.0:
            times.popleft()
        if len(times) >= READS_PER_SECOND:
            return False
        times.append(now)
        return True

    def learn(self, request: dict[str, Any], answer: dict[str, Any]) -> None:
        """Note the shard of an iterator that was handed out."""
        asked = request.get("ShardIterator", "")
        shard = self.shards.pop(asked, asked) if asked else f"{request.get('StreamName')}/{request.get('ShardId')}"
        handed_out = answer.get("NextShardIterator") or answer.get("ShardIterator")
        if handed_out:
            self.shards[handed_out] = shard


class AwsFaultProxy(HttpProxy):
    """Passes every call on to a local AWS endpoint, until told to answer it with an error instead."""

    def __init__(self, target_url: str) -> None:
        """Stand before this endpoint; the proxy's own port is taken from the operating system."""
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
        """Answer as Kinesis does beyond a shard's throughput."""
        self.fail(operation, "ProvisionedThroughputExceededException", times=times)

    def expire_iterators(self, times: int = 1) -> None:
        """Answer reads as five minutes after their iterator was handed out."""
        self.fail("GetRecords", "ExpiredIteratorException", times=times)

    def limit_reads(self) -> None:
        """From now on let each shard be read `READS_PER_SECOND` times a second, as Kinesis itself does."""
        self._limit = self._limit or _Limit()

    def heal(self) -> None:
        """Take all faults and limits back."""
        self._faults.clear()
        self._limit = None

    async def _answer(self, request: web.Request) -> web.Response:
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2] or request.method
        self.calls[operation] = self.calls.get(operation, 0) + 1
        self.headers = request.headers
        body = await request.read()
        asked = json.loads(body) if self._limit is not None and operation in {"GetRecords", "GetShardIterator"} else {}
        fault = self._faults.get(operation) or self._faults.get("*")
        if fault is not None and fault.left > 0:
            fault.left -= 1
            return _error(fault.code, fault.status)
        if self._limit is not None and operation == "GetRecords" and not self._limit.allows(asked["ShardIterator"]):
            return _error("ProvisionedThroughputExceededException", 400)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _DROPPED_HEADERS}
        url = self.target_url + request.raw_path
        async with self._client.request(request.method, url, data=body, headers=headers) as answer:
            content = await answer.read()
            if asked and answer.ok and self._limit is not None:
                self._limit.learn(asked, json.loads(content))
            passed = {name: value for name, value in answer.headers.items() if name.lower() not in _DROPPED_HEADERS}
            return web.Response(status=answer.status, body=content, headers=passed)


def _error(code: str, status: int) -> web.Response:
    body = json.dumps({"__type": code, "message": _MESSAGE})
    return web.Response(status=status, text=body, content_type="application/x-amz-json-1.1")

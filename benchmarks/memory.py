"""A turn of a conversation held against the bare requests it cannot do without, in each memory: `make bench-memory`.

A turn: the last 20 messages are read, its number is claimed with its question, its answer is kept. The bare requests, by the
same kind of client on the same server: one read of 20 messages and two unconditional writes of the same bodies. Turns and bare
requests alternate, so both meet the same load; the ratio is that of their medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

from benchmarks.servers import servers
from benchmarks.stores import machine
from memory import open_store
from memory.conversations import RECENT, Conversations
from memory.documentdb.config import DocumentDBMemoryConfig
from memory.dynamodb.config import DynamoDBMemoryConfig
from memory.memorydb.config import MemoryDBConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from memory import MemoryConfig

PARTS = {"dynamodb": "aws", "documentdb": "documentdb", "memorydb": "memorydb"}
ANSWER = {"answer": "The H2 stores 21 days of readings from up to forty devices. " * 6}
QUESTION = "How many days of readings does an H2 hub store while it is offline? " * 3


def config_of(kind: str, endpoint: Mapping[str, str]) -> MemoryConfig:
    """The configuration of a new memory."""
    name = f"bench_{uuid.uuid4().hex[:8]}"
    if kind == "dynamodb":
        return DynamoDBMemoryConfig.model_validate({"type": kind, "table": name, **endpoint})
    if kind == "documentdb":
        return DocumentDBMemoryConfig.model_validate({"type": kind, "database": name, **endpoint})
    return MemoryDBConfig.model_validate({"type": kind, "prefix": name, **endpoint})


def bare_of(config: MemoryConfig) -> Callable[[int], object]:
    """A function that makes the bare requests of one turn."""
    body = json.dumps({"reply": ANSWER, "notes": {}})
    if isinstance(config, DynamoDBMemoryConfig):
        return _in_dynamodb(config, body)
    return _in_documentdb(config, body) if isinstance(config, DocumentDBMemoryConfig) else _in_memorydb(config, body)


def _in_dynamodb(config: DynamoDBMemoryConfig, body: str) -> Callable[[int], object]:
    from memory.dynamodb.client import Table

    client = Table(config).client

    def bare(number: int) -> None:
        client.query(
            TableName=config.table, ConsistentRead=True, ScanIndexForward=False, Limit=RECENT,
            KeyConditionExpression="pk = :p AND begins_with(sk, :s)",
            ExpressionAttributeValues={":p": {"S": "bare"}, ":s": {"S": "t"}},
        )  # fmt: skip
        for part in (1, 2):
            key = {"pk": {"S": "bare"}, "sk": {"S": f"t{number:010}.{part}"}}
            client.put_item(TableName=config.table, Item={**key, "body": {"S": body}})

    return bare


def _in_documentdb(config: DocumentDBMemoryConfig, body: str) -> Callable[[int], object]:
    from pymongo import MongoClient

    client: MongoClient[dict[str, Any]] = MongoClient(config.uri.get_secret_value(), retryWrites=False, w="majority")
    table = client[config.database][config.collection]

    def bare(number: int) -> None:
        list(table.find({"_id": {"$gte": "bare/", "$lt": "bare0"}}).sort("_id", -1).limit(RECENT))
        for part in (1, 2):
            table.insert_one({"_id": f"bare/{number:010}.{part}", "body": body})

    return bare


def _in_memorydb(config: MemoryDBConfig, body: str) -> Callable[[int], object]:
    from urllib.parse import urlsplit

    from valkey.cluster import ValkeyCluster

    parts = urlsplit(config.url.get_secret_value())
    client: Any = ValkeyCluster(host=str(parts.hostname), port=int(parts.port or 0), decode_responses=True)

    def bare(number: int) -> None:
        last = range(max(1, number - RECENT // 2), max(2, number))
        client.mget([f"{{bare}}:{turn}.{part}" for turn in last for part in (1, 2)])
        for part in (1, 2):
            client.set(f"{{bare}}:{number}.{part}", body)

    return bare


def measured(kind: str, endpoint: Mapping[str, str], turns: int) -> dict[str, float]:
    """Medians in milliseconds of a turn and of its bare requests, and their ratio."""
    config = config_of(kind, endpoint)
    took: dict[str, list[float]] = {"turn": [], "bare": []}
    with closing(open_store(config)) as store:
        store.check()
        conversations, bare = Conversations(store, config), bare_of(config)
        for number in range(1, turns + 1):
            began = time.perf_counter()
            with conversations.turn("user", "session", f"{QUESTION} {number}") as turn:
                conversations.answer(turn, ANSWER, {})
            between = time.perf_counter()
            bare(number)
            if number > RECENT:  # both read 20 messages
                took["turn"].append(between - began)
                took["bare"].append(time.perf_counter() - between)
    ms = {name: round(statistics.median(times) * 1000, 2) for name, times in took.items()}
    return {"turn_ms": ms["turn"], "bare_ms": ms["bare"], "ratio": round(ms["turn"] / ms["bare"], 2)}


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=320)
    options = parser.parse_args()
    about = machine()
    with servers(list(PARTS.values())) as stack:
        endpoints = stack.endpoints()
        results = {kind: measured(kind, endpoints[part], options.turns) for kind, part in PARTS.items()}
    print(json.dumps({"benchmark": "memory", "turns": options.turns, **results, "machine": about}))


if __name__ == "__main__":
    main()

"""CocoIndex: Debezium's topic as a live keyed map, remembered and batched embedding, a pgvector table as its target.

Runs in an environment of its own (`make peers`). Its PostgreSQL source is a scan without notification, so Kafka is its live
way in. As documented (`topic_as_map` into `mount_each`) version 1.0.26 deletes what it loaded at the moment it is ready, so
its feed is ready before its first item here. The commit of each message's offset is sent without waiting for the broker's answer.
Environment: BOOTSTRAP, TOPIC, TARGET_DSN (a URI), MODEL_URL, WORK_DIR, NAME.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

os.environ.setdefault("COCOINDEX_DISABLE_USAGE_TRACKING", "1")
os.environ.setdefault("COCOINDEX_DB", os.environ["WORK_DIR"] + "/cocoindex.db")

import aiohttp
import asyncpg
import cocoindex as coco
import numpy as np
from cocoindex.connectors import kafka, postgres
from cocoindex.resources.schema import VectorSchema
from confluent_kafka.aio import AIOConsumer
from numpy.typing import NDArray

TARGET = coco.ContextKey[asyncpg.Pool]("target")
READY_SECONDS = 2.0
"""Pause between being ready and the first item, which the first pass over an empty target needs."""
_sessions: list[aiohttp.ClientSession] = []


@dataclass
class Row:
    """A row of the target."""

    id: int
    status: str
    nonce: int
    txt: str
    vec: Annotated[NDArray, VectorSchema(dtype=np.dtype(np.float32), size=384)]


@coco.lifespan
async def lifespan(builder: coco.EnvironmentBuilder) -> AsyncIterator[None]:
    """Keep a pool of connections to the target."""
    async with asyncpg.create_pool(os.environ["TARGET_DSN"]) as pool:
        builder.provide(TARGET, pool)
        yield


@coco.fn.as_async(batching=True, max_batch_size=64)
async def call_model(texts: list[str]) -> list[NDArray]:
    """Embed a batch of texts in one request; a batch runs outside any component, so the session is the module's."""
    if not _sessions:
        _sessions.append(aiohttp.ClientSession())
    body = {"model": "minilm", "input": texts}
    async with _sessions[0].post(os.environ["MODEL_URL"] + "/v1/embeddings", json=body) as answer:
        answer.raise_for_status()
        return [np.array(row["embedding"], np.float32) for row in (await answer.json())["data"]]


@coco.fn(memo=True)
async def embed(text: str) -> NDArray:
    """Embed a text once."""
    return await call_model(text)


@coco.fn
async def process(message: Any, table: postgres.TableTarget[Row]) -> None:
    """Declare the row of a change."""
    after = json.loads(message.value())["after"]
    text = f"{after['title']}\n\n{after['body']}"
    table.declare_row(row=Row(after["id"], after["status"], after["nonce"], text, await embed(text)))


class Consumer(AIOConsumer):
    """Its consumer, which does not wait for the broker at each message."""

    async def commit(self, **options: Any) -> Any:
        """Commit without waiting."""
        return await super().commit(**(options | {"asynchronous": True}))


class Unready:
    """A subscriber that is told of readiness elsewhere."""

    def __init__(self, subscriber: Any) -> None:
        self.update, self.delete = subscriber.update, subscriber.delete

    async def mark_ready(self) -> None:
        """Leave it."""


class ReadyFirst:
    """A feed that is ready before its first item."""

    def __init__(self, feed: Any) -> None:
        self._feed = feed

    async def watch(self, subscriber: Any) -> None:
        """Be ready, then pass the items on."""
        await subscriber.mark_ready()
        await asyncio.sleep(READY_SECONDS)
        await self._feed.watch(Unready(subscriber))


@coco.fn
async def main() -> None:
    """Mount the topic on the table."""
    schema = await postgres.TableSchema.from_class(Row, primary_key=["id"])
    table = await postgres.mount_table_target(TARGET, table_name="coco_articles", table_schema=schema)
    table.declare_vector_index(column="vec", metric="cosine", method="hnsw")
    consumer = Consumer({
        "bootstrap.servers": os.environ["BOOTSTRAP"], "group.id": os.environ["NAME"], "enable.auto.commit": "false",
        "auto.offset.reset": "earliest",
    })  # fmt: skip
    feed = kafka.topic_as_map(
        consumer, [os.environ["TOPIC"]], is_deletion=lambda message: json.loads(message.value())["op"] == "d"
    )
    await coco.mount_each(process, ReadyFirst(feed), table)


if __name__ == "__main__":
    coco.App(coco.AppConfig(name="articles"), main).update_blocking(live=True)

"""A helpdesk of two tenants: a table in PostgreSQL, the pipeline that indexes it, the service over the store, and its page."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from local_stack.demo.helpdesk import rows
from local_stack.servers.connect import Connect
from local_stack.servers.kafka import Broker
from local_stack.servers.memorydb import MemoryDB
from sources.capture.debezium import DebeziumCaptureConfig
from sources.capture.rendering import render
from tests.e2e.pipeline import START_SECONDS, Pipeline, running
from tests.helpdesk import LOCAL
from tests.servers import unique
from tests.serving import Served, serving
from tests.waiting import eventually

STORE = "helpdesk"
KEYS = {"ada": "key-of-ada-7c0f1d", "bob": "key-of-bob-52b9aa"}
TENANTS = {"ada": "north", "bob": "south"}
HUB = 3
"""The article that tells how long a hub keeps readings."""
QUESTION = "How many days of readings does an H2 hub store while it is offline?"
SECRET, HOSTILE = 901, 902
"""The other tenant's row, and one whose text wants to run."""
SECRET_QUESTION = "What is the door code of the seed vault in Alta?"
HOSTILE_QUESTION = "How are glasshouses fumigated against whitefly?"
MARKUP = (
    "<script>window.ran='script'</script><img src=x onerror=\"window.ran='image'\"><svg onload=\"window.ran='svg'\">"
    "<iframe srcdoc=\"<script>parent.ran='frame'</script>\"></iframe><a href=\"javascript:window.ran='link'\">a</a>"
    "<style>*{display:none}</style><form action=https://evil.example/><button>go</button></form> "
    "[click](javascript:window.ran='markdown') ![pixel](https://evil.example/pixel.png) <https://evil.example/auto>"
)
_CREATE = (
    "CREATE TABLE public.articles (id bigint PRIMARY KEY, tenant text NOT NULL, title text NOT NULL, "
    "body text NOT NULL, updated_at timestamptz NOT NULL DEFAULT now())"
)
_INSERT = "INSERT INTO public.articles VALUES (%s, %s, %s, %s)"


@dataclass
class Desk:
    """What the page's tests change, and look at."""

    dsn: str
    """Of the source database."""
    store_dsn: str
    pipeline: Pipeline
    served: Served

    def execute(self, statement: str, *values: object) -> None:
        """Commit a statement at the source."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statement.encode(), values)

    def say(self, number: int, old: str, new: str) -> None:
        """Change words of an article at the source."""
        self.execute("UPDATE public.articles SET body = replace(body, %s, %s) WHERE id = %s", old, new, number)

    def insert(self, number: int, tenant: str, title: str, body: str) -> None:
        """Commit an article, and wait until it is searchable."""
        self.execute(_INSERT, number, tenant, title, body)
        eventually(lambda: self.searchable("key->>'id' = %s", str(number)))

    def searchable(self, condition: str, *values: object) -> int:
        """How many chunks of the store fulfil a condition."""
        return _chunks(self.store_dsn, condition, *values)


class Servers(NamedTuple):
    """What the desk needs of the local stack."""

    source_dsn: str
    store_dsn: str
    kafka: Broker
    connect: Connect
    memorydb: MemoryDB
    mark: str


@contextmanager
def open_desk(folder: Path, servers: Servers) -> Iterator[Desk]:
    """Commit the rows, capture and index them, and serve them until the block ends."""
    source_dsn, store_dsn, kafka, connect, memorydb, mark = servers
    _seed(source_dsn)
    prefix = unique("desk")
    topic = f"{prefix}.public.articles"
    kafka.create_topic(topic, 1)
    wanted = {"connector": prefix, "topic_prefix": prefix, "topic_partitions": 1, "replication_factor": 1}
    capture = DebeziumCaptureConfig.model_validate({"type": "debezium", "dsn": source_dsn} | wanted)
    connector = render(capture, prefix, ["public.articles"], [topic], reveal=True)["connector"]
    source = {"type": "kafka", "envelope": "debezium", "topics": [topic], **kafka.endpoint}
    pipeline = Pipeline(folder, _document(folder, source, store_dsn, memorydb), mark=mark)
    with running(pipeline):
        driver = pipeline.start("--jobs", "index")
        connect.put_connector(prefix, connector["config"])
        try:
            eventually(lambda: _is_filled(store_dsn), START_SECONDS, driver.process)
            with serving(pipeline.document, folder / "served") as served:
                yield Desk(source_dsn, store_dsn, pipeline, served)
        finally:
            connect.delete_connector(prefix)


def _seed(dsn: str) -> None:
    articles = [(row["id"], "north", row["title"], row["body"]) for row in rows("articles")[:24]]
    secret = (SECRET, "south", "The seed vault in Alta", "The door code of the seed vault in Alta is 4417-KESTREL.")
    hostile = (
        HOSTILE, "north", "Fumigating glasshouses against whitefly",
        f"Glasshouses are fumigated against whitefly at dusk, with vents shut for nine hours. {MARKUP}",
    )  # fmt: skip
    with psycopg.connect(dsn) as connection:
        connection.execute(_CREATE)
        connection.cursor().executemany(_INSERT, [*articles, secret, hostile])


def _chunks(store_dsn: str, condition: str, *values: object) -> int:
    with psycopg.connect(store_dsn) as store:
        query = f"SELECT count(*) FROM {STORE} WHERE {condition}"
        (count,) = store.execute(query.encode(), values).fetchone() or (0,)
        return int(count)


def _is_filled(store_dsn: str) -> bool:
    try:
        return _chunks(store_dsn, "key->>'id' IN (%s, %s, %s)", str(HUB), str(SECRET), str(HOSTILE)) >= 3
    except psycopg.errors.UndefinedTable:
        return False


def _document(folder: Path, source: dict[str, Any], store_dsn: str, memorydb: MemoryDB) -> dict[str, Any]:
    keys = [
        {"name": user, "sha256": hashlib.sha256(key.encode()).hexdigest(), "claims": {"tenant": TENANTS[user]}}
        for user, key in KEYS.items()
    ]
    profile = {"plan": {"type": "text", "choices": ["Grower", "Estate"]}, "hubs": {"type": "integer", "maximum": 40}}
    template = {"template": "{title}\n\n{body}", "metadata": ["tenant"], "chunk": {"max_tokens": 240, "overlap": 32}}
    return {
        "name": "helpdesk",
        "source": source,
        "tables": [{"table": "public.articles", "keys": ["id"], "document": template}],
        "access": {"tenant": "${claim:tenant}"},
        "lake": {"path": str(folder / "lake")},
        "checkpoint": str(folder / "checkpoint"),
        "embedding": json.loads(LOCAL.model_dump_json()),
        "sinks": [{"type": "pgvector", "dsn": store_dsn, "table": STORE}],
        "memory": {"type": "memorydb", "prefix": unique("desk"), "profile": profile, **memorydb.endpoint},
        "serve": {"callers": {"type": "api_keys", "keys": keys}},
    }

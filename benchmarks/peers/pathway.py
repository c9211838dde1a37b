"""Pathway: its Debezium source on Kafka, a batched embedding function, its PostgreSQL sink as a snapshot with pgvector.

Runs in an environment of its own (`make peers`). It commits every 5 ms, so that a change waits little for its pass. Its Debezium
parser wants records with their schema, a delete needs the whole old row, and a column named `id` is its own, so the source
has a copy of the key. Each distinct text is embedded once: a plain `select` would embed at every change of a row.
Environment: BOOTSTRAP, TOPIC, TARGET_DSN (a URI), MODEL_URL, NAME.
"""

from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit

import numpy as np
import pathway as pw
import requests

TARGET = urlsplit(os.environ["TARGET_DSN"])
COMMIT_MS = int(os.environ.get("COMMIT_MS", "5"))
"""The longest that a change waits for the next pass."""
http = requests.Session()


class Article(pw.Schema):
    """A row of the source."""

    id: int = pw.column_definition(primary_key=True)
    title: str
    body: str
    status: str
    nonce: int
    aid: int


@pw.udf(max_batch_size=64)
def embed(texts: list[str]) -> list[np.ndarray]:
    """Embed a batch of texts in one request."""
    body = {"model": "minilm", "input": texts}
    answer = http.post(os.environ["MODEL_URL"] + "/v1/embeddings", json=body, timeout=60)
    answer.raise_for_status()
    return [np.array(row["embedding"], np.float32) for row in answer.json()["data"]]


if __name__ == "__main__":
    consumer = {
        "bootstrap.servers": os.environ["BOOTSTRAP"], "group.id": os.environ["NAME"], "session.timeout.ms": "6000",
        "auto.offset.reset": "earliest",
    }  # fmt: skip
    changes = pw.io.debezium.read(
        consumer, topic_name=os.environ["TOPIC"], schema=Article, autocommit_duration_ms=COMMIT_MS
    )
    rows = changes.select(changes.aid, changes.status, changes.nonce, txt=changes.title + "\n\n" + changes.body)
    texts = rows.groupby(rows.txt).reduce(rows.txt)
    vectors = texts.select(texts.txt, vec=embed(texts.txt))
    joined = rows.join(vectors, rows.txt == vectors.txt)
    articles = joined.select(rows.aid, rows.status, rows.nonce, rows.txt, vectors.vec)
    target = {
        "host": TARGET.hostname, "port": TARGET.port, "user": TARGET.username, "password": unquote(TARGET.password or ""),
        "dbname": TARGET.path[1:],
    }  # fmt: skip
    pw.io.postgres.write(articles, target, "pathway_articles", output_table_type="snapshot", primary_key=[articles.aid])
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)

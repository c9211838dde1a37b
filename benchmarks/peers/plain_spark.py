"""The plain pipeline, as the common foreachBatch samples write it: embed every changed row, upsert; MERGE.

It is tuned for latency: the MERGE is a query of its own with a clock of 30 s, as in ours, so that no upsert waits for it, and
a shuffle has one partition.

Environment: BOOTSTRAP, TOPIC, TARGET_DSN, MODEL_URL, WORK_DIR.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pandas as pd
import psycopg
import requests
from delta.tables import DeltaTable
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import Row

from benchmarks.peers.plain_merge import merge_into, newest_of
from glue_jobs.runtime.spark.session import open_session

WORK, MODEL, TARGET = os.environ["WORK_DIR"], os.environ["MODEL_URL"], os.environ["TARGET_DSN"]
COLUMNS = {"id": "long", "title": "string", "body": "string", "status": "string", "nonce": "long"}
MERGE_EVERY = "30 seconds"
spark = open_session("plain", checkpoint=f"{WORK}/checkpoint", cores=2)
spark.conf.set("spark.sql.shuffle.partitions", "1")


@F.pandas_udf("array<float>")  # type: ignore[untyped-decorator,attr-defined]
def embed(texts: pd.Series) -> pd.Series:
    """Embed each text, 64 a request."""
    vectors: list[list[float]] = []
    for start in range(0, len(texts), 64):
        body = {"model": "minilm", "input": texts[start : start + 64].tolist()}
        answer = requests.post(f"{MODEL}/v1/embeddings", json=body, timeout=60)
        answer.raise_for_status()
        vectors += [row["embedding"] for row in answer.json()["data"]]
    return pd.Series(vectors)


def write_partition(rows: Iterator[Row]) -> None:
    """Upsert the rows of a partition."""
    statement = """INSERT INTO plain_articles VALUES (%s, %s, %s, %s, %s::vector) ON CONFLICT (id) DO UPDATE SET
                   status = excluded.status, nonce = excluded.nonce, txt = excluded.txt, vec = excluded.vec"""
    with psycopg.connect(TARGET) as target, target.cursor() as cursor:
        cursor.executemany(statement, [(r.id, r.status, r.nonce, r.txt, str(list(r.vec))) for r in rows])


def upsert(frame: DataFrame, batch_id: int) -> None:
    """Embed and upsert the last event of each key, and delete what is gone."""
    del batch_id
    last = newest_of(frame, COLUMNS, "offset").cache()
    live = last.where("op <> 'd'").withColumn("txt", F.concat_ws("\n\n", "title", "body"))
    live.withColumn("vec", embed("txt")).select("id", "status", "nonce", "txt", "vec").foreachPartition(write_partition)
    gone = [row.id for row in last.where("op = 'd'").select("id").collect()]
    if gone:
        with psycopg.connect(TARGET) as target:
            target.execute("DELETE FROM plain_articles WHERE id = ANY(%s)", (gone,))
    last.unpersist()


def merge(frame: DataFrame, batch_id: int) -> None:
    """MERGE the last change of each key into the current-state table."""
    del batch_id
    table = DeltaTable.createIfNotExists(spark).location(f"{WORK}/lake/articles")
    for name, kind in COLUMNS.items():
        table = table.addColumn(name, kind)
    merge_into(table.execute(), newest_of(frame, COLUMNS, "offset"), COLUMNS)


if __name__ == "__main__":
    with psycopg.connect(TARGET, autocommit=True) as c:
        c.execute("CREATE EXTENSION IF NOT EXISTS vector")
        c.execute(
            "CREATE TABLE plain_articles (id bigint PRIMARY KEY, status text, nonce bigint, txt text, vec vector(384))"
        )
        c.execute("CREATE INDEX ON plain_articles USING hnsw (vec vector_cosine_ops)")
    kafka = spark.readStream.format("kafka").option("kafka.bootstrap.servers", os.environ["BOOTSTRAP"])
    stream = kafka.option("subscribe", os.environ["TOPIC"]).option("startingOffsets", "earliest").load()
    merging = stream.writeStream.foreachBatch(merge).trigger(processingTime=MERGE_EVERY)
    merging.option("checkpointLocation", f"{WORK}/checkpoint/merge").start()
    stream.writeStream.foreachBatch(upsert).option(
        "checkpointLocation", f"{WORK}/checkpoint/upsert"
    ).start().awaitTermination()

"""A rebuild against two baselines over the same rows, and a reconciliation of its result: `make bench-reconcile`.

The lake holds one change a row and a vector for each text (synthetic; the model is instant and is never asked). A store is
rebuilt from it, then compared with it, values of vectors and all. Then the same documents, vectors and chunks are copied into
empty stores of the same schema: by COPY into indexed tables, and the way people fill a store: COPY into tables without the
vector index, then CREATE INDEX with 1 GB and two parallel workers. One run, one machine; ratios are what counts.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import tempfile
import time
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
from psycopg import sql

from benchmarks.servers import servers
from embeddings import open_embedder
from glue_jobs.config.pipeline import PipelineConfig, decode_context, parse_config
from glue_jobs.config.values import Substitution
from glue_jobs.operations.rebuild import Rebuild
from glue_jobs.operations.reconcile import Reconcile
from glue_jobs.runtime.spark.session import open_session
from lake.embedding_cache import EmbeddingCache
from lake.landing.batch import Landing
from lake.layout import LakeLayout
from local_stack.models.instant import NATIVE_DIMENSIONS, instant_vector
from local_stack.servers.connect import request_json
from local_stack.stack import Stack
from sinks import open_sink
from transforms.documents.planning import DocumentSpec, chunks_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TABLE = "public.t"
BATCH = 10_000
DIMENSIONS = 512
_RECORD = "stream string, partition string, position string, key binary, value binary, headers array<struct<key:string,\
value:binary>>, timestamp timestamp"


def configuration(folder: Path, dsn: str, model_url: str) -> PipelineConfig:
    """A pipeline of one table and two stores: one to rebuild, one to copy into."""
    document = {"template": "{body}", "metadata": ["status"], "chunk": {"max_tokens": 240, "overlap": 32}}
    embedding = {
        "type": "bedrock", "model": "amazon.titan-embed-text-v2:0", "dimensions": DIMENSIONS, "region": "eu-central-1",
        "endpoint_url": model_url, "access_key": "local", "secret_key": "local",
    }  # fmt: skip
    configuration = {
        "name": "bench",
        "source": {"type": "kafka", "envelope": "debezium", "bootstrap_servers": "127.0.0.1:9", "topics": ["away"]},
        "tables": [{"table": TABLE, "keys": ["id"], "document": document}],
        "lake": {"path": str(folder / "lake")},
        "checkpoint": str(folder / "checkpoint"),
        "embedding": embedding,
        "sinks": [
            {"type": "pgvector", "name": name, "dsn": dsn, "table": name} for name in ("rebuilt", "copied", "loaded")
        ],
    }
    return parse_config(json.dumps(configuration), "bench", Substitution({}, folder))


def body(number: int) -> str:
    """A text of one chunk."""
    return f"Order {number} was not delivered. The parcel shop says it left on day {number % 28 + 1}, and nobody saw it since."


def fill(spark: SparkSession, config: PipelineConfig, rows: int) -> None:
    """Land an INSERT of each row, and cache a vector of each text."""
    assert config.embedding is not None  # noqa: S101 - `configuration` has one
    context = decode_context(config, config.sources[0].name)
    landing = Landing(LakeLayout(config.lake.path), config.sources[0].name, context)
    cache = EmbeddingCache(config.lake.path, open_embedder(config.embedding).fingerprint)
    spec = next(filter(None, map(DocumentSpec.of, config.tables)))
    for turn, numbers in enumerate(batched(range(1, rows + 1), BATCH)):
        records: list[Any] = [("t", "0", str(n), None, _value(n), [], None) for n in numbers]
        landing.land(
            spark.createDataFrame(records, _RECORD),
            lambda table, turn=turn: {"txnAppId": f"land:{table}", "txnVersion": str(turn)},  # type: ignore[misc]
        )
        chunks = [chunk for n in numbers for chunk in chunks_of("", body(n), spec.document)]
        cache.add({chunk.content_hash: _vector(chunk.chunk_text) for chunk in chunks})


def _vector(text: str) -> np.ndarray:
    return np.pad(instant_vector(text), (0, DIMENSIONS - NATIVE_DIMENSIONS))


def _value(number: int) -> bytes:
    source = {"schema": "public", "table": "t", "sequence": f'["{number}","{number}"]', "ts_us": number}
    after = {"id": number, "status": "open", "body": body(number)}
    return json.dumps({"op": "c", "before": None, "after": after, "source": source}).encode()


def bulk_copy(dsn: str, table: str, *, index_after: bool) -> float:
    """Seconds of a COPY of the rebuilt store's rows into the empty one, from this process's memory.

    With `index_after` the vector index is dropped before, and its CREATE INDEX counts.
    """
    columns = {
        "documents": "document_id, table_name, key, sequence, revision, live, metadata, state, texts, recipe, pending",
        "vectors": "content_hash, embedding",
        "chunks": "chunk_id, document_id, chunk_index, content_hash, chunk_text",
    }
    took = 0.0
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        index = _without_vector_index(cursor, table) if index_after else b""
        for part, names in columns.items():
            out = sql.SQL("COPY {} ({}) TO STDOUT (FORMAT binary)").format(
                sql.Identifier(f"rebuilt_g1_{part}"), sql.SQL(names)
            )
            with cursor.copy(out) as read:
                data = b"".join(map(bytes, read))
            into = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
                sql.Identifier(f"{table}_g1_{part}"), sql.SQL(names)
            )
            began = time.perf_counter()
            with cursor.copy(into) as write:
                write.write(data)
            took += time.perf_counter() - began
        began = time.perf_counter()
        if index_after:
            cursor.execute("SET LOCAL maintenance_work_mem = '1GB'; SET LOCAL max_parallel_maintenance_workers = 2")
            cursor.execute(index)
        connection.commit()
        return took + time.perf_counter() - began


def _without_vector_index(cursor: psycopg.Cursor, table: str) -> bytes:
    """Drop the vector index of a store; returns the statement that creates it again."""
    cursor.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s AND indexdef LIKE '%% USING hnsw %%'",
        (f"{table}_g1_vectors",),
    )
    ((name, definition),) = cursor.fetchall()
    cursor.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
    return str(definition).encode()


def measure(stack: Stack, folder: Path, rows: int, *, compared: bool = True) -> dict[str, Any]:
    """Rebuild, compare, copy; without `compared`, rebuild and copy the way people fill a store."""
    dsn, model_url = stack.service("vectors").endpoint["dsn"], stack.service("instant-model").endpoint["endpoint_url"]
    config = configuration(folder, dsn, model_url)
    assert config.embedding is not None  # noqa: S101 - `configuration` has one
    embedder = open_embedder(config.embedding)
    spark = open_session("bench-reconcile", checkpoint=config.checkpoint, cores=2)
    fill(spark, config, rows)
    for sink in config.sinks:
        open_sink(sink, embedder.fingerprint, embedder.dimensions).prepare()
    began = time.perf_counter()
    rebuilt = Rebuild(spark, config, config.sinks[0], config.embedding, lambda *_: None).run()
    rebuild = time.perf_counter() - began
    if (rebuilt.written, rebuilt.texts_sent) != (rows, 0):
        raise AssertionError(f"{rebuilt} of {rows}")
    figures: dict[str, Any] = {}
    for vectors in (True, False) if compared else ():
        report = Reconcile(spark, config, config.sinks[0], config.embedding, lambda *_: None, vectors).run(repair=False)
        if any(report.drift.values()) or report.rows != 2 * rows:
            raise AssertionError(f"{report} of {rows}")
        name = "reconcile" if vectors else "reconcile_no_vectors"
        figures |= {f"{name}_seconds": report.seconds, f"{name}_rows_read_ratio": report.rows_read / report.rows}
    spark.stop()
    if compared:
        indexed = bulk_copy(dsn, "copied", index_after=False)
        figures |= {
            "copy_into_index_chunks_per_second": round(rows / indexed),
            "rebuild_over_copy_into_index": round(indexed / rebuild, 3),
        }
    loaded = bulk_copy(dsn, "loaded", index_after=True)
    _, asked = request_json(model_url, "GET", "/counters")
    return figures | {
        "rebuild_chunks_per_second": round(rows / rebuild),
        "copy_then_index_chunks_per_second": round(rows / loaded),
        "rebuild_over_copy_then_index": round(loaded / rebuild, 3),
        "texts_sent": asked["texts"],
    }


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reconcile")
    parser.add_argument("--chunks", type=int, default=100_000)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with servers(["vectors", "instant-model"]) as stack, tempfile.TemporaryDirectory() as folder:
        figures = measure(stack, Path(folder), options.chunks)
    versions = {name: importlib.metadata.version(name) for name in ("pyspark", "psycopg", "pgvector", "pyarrow")}
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "load_before": round(load, 2)}
    line = {"benchmark": "reconcile", "chunks": options.chunks, "dimensions": DIMENSIONS, "figures": figures}
    print(json.dumps(line | machine | {"versions": versions}))


if __name__ == "__main__":
    main()

"""Flink SQL from Python: debezium-json on Kafka, embedding by a vectorised UDF, upsert to PostgreSQL through JDBC.

Runs in an environment of its own (`make peers`). The JDBC connector knows no vector type, so the vector travels as text
and a trigger of the target casts it. Needs REPLICA IDENTITY FULL at the source.
It is tuned for latency: bundles of the Python function, network buffers and the sink's buffer wait 3 ms at most, and objects
are passed on without a copy.
Environment: BOOTSTRAP, TOPIC, TARGET_DSN (a URI), MODEL_URL, NAME, FLINK_JARS_DIR.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pandas as pd
import requests
from pyflink.table import DataTypes, EnvironmentSettings, TableEnvironment
from pyflink.table.udf import udf

TARGET = urlsplit(os.environ["TARGET_DSN"])
JARS = ";".join(jar.resolve().as_uri() for jar in Path(os.environ["FLINK_JARS_DIR"]).glob("*.jar"))
WAIT_MS = 3
"""The longest that a stage waits to fill a batch. 50 ms and 3 ms were measured: 3 ms is better at every percentile."""
SETTINGS = {
    "parallelism.default": "1",
    "pipeline.object-reuse": "true",
    "execution.buffer-timeout.interval": f"{WAIT_MS} ms",
    "python.executable": sys.executable,
    "pipeline.jars": JARS,
    "python.fn-execution.bundle.time": str(WAIT_MS),
    "python.fn-execution.arrow.batch.size": "64",
    "table.exec.sink.upsert-materialize": "NONE",
}
SOURCE = f"""CREATE TABLE articles (
  id BIGINT, title STRING, body STRING, status STRING, nonce BIGINT, PRIMARY KEY (id) NOT ENFORCED
) WITH ('connector' = 'kafka', 'topic' = '{os.environ["TOPIC"]}', 'format' = 'debezium-json',
  'debezium-json.schema-include' = '{os.environ.get("SCHEMAS", "false")}', 'scan.startup.mode' = 'earliest-offset',
  'properties.bootstrap.servers' = '{os.environ["BOOTSTRAP"]}', 'properties.group.id' = '{os.environ["NAME"]}')"""
SINK = f"""CREATE TABLE flink_articles (
  id BIGINT, status STRING, nonce BIGINT, txt STRING, vec_text STRING, PRIMARY KEY (id) NOT ENFORCED
) WITH ('connector' = 'jdbc', 'table-name' = 'flink_articles', 'username' = '{TARGET.username}',
  'url' = 'jdbc:postgresql://{TARGET.hostname}:{TARGET.port}{TARGET.path}',
  'password' = '{unquote(TARGET.password or "")}', 'sink.buffer-flush.interval' = '{WAIT_MS}ms',
  'sink.buffer-flush.max-rows' = '500')"""
INSERT = """INSERT INTO flink_articles SELECT id, status, nonce, txt, embed(txt) FROM (
  SELECT id, status, nonce, title || CHR(10) || CHR(10) || body AS txt FROM articles)"""


@udf(result_type=DataTypes.STRING(), func_type="pandas")
def embed(texts: pd.Series) -> pd.Series:
    """Embed a batch of texts in one request."""
    body = {"model": "minilm", "input": texts.tolist()}
    answer = requests.post(os.environ["MODEL_URL"] + "/v1/embeddings", json=body, timeout=60)
    answer.raise_for_status()
    return pd.Series([str(row["embedding"]) for row in answer.json()["data"]])


if __name__ == "__main__":
    tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    for name, value in SETTINGS.items():
        tables.get_config().set(name, value)
    tables.create_temporary_function("embed", embed)
    tables.execute_sql(SOURCE)
    tables.execute_sql(SINK)
    tables.execute_sql(INSERT).wait()

"""Latency from commit to searchable in each store: `make bench-store-freshness`. Five stores, and pgvector alone, in turn.

    python -m benchmarks.store_freshness [--rate 50] [--seconds 30] [--runs 3]

One workload (`benchmarks.workload`), two drivers as in `benchmarks.freshness`, all jobs on, an instant model. Each store is
polled from outside by its own client: pgvector every 10 ms, OpenSearch and the stand-in for DocumentDB every 50 ms (four of the
awaited rows until one shows, then 50), the lake and the stand-in for Redshift every 500 ms: who looks shares the cores with what
is looked at. The lake lands every 5 s and the warehouse is loaded once a minute, so theirs are mostly those clocks. Ends in one
line of JSON: percentiles in milliseconds, texts sent ÷ needed and CPU of each run, and of each vector store those of all five
÷ those of pgvector alone.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow.dataset as ds
import yaml
from deltalake import DeltaTable

from benchmarks import workload
from benchmarks.cpu import cpu_seconds, spent
from benchmarks.freshness import PARTS, ROWS, captured, child, console, new_databases, texts_sent
from benchmarks.peers import PEERS, pipeline, two_drivers
from benchmarks.servers import servers
from benchmarks.workload import Look, Poller
from glue_jobs.config.pipeline import PipelineConfig, load_config
from lake.layout import LakeLayout
from local_stack.demo.store_readers import open_reader, row_id
from local_stack.servers.aws import REGION
from local_stack.stack import Stack
from tests.servers import unique

if TYPE_CHECKING:
    from sinks import SinkConfig

TABLE = "public.articles"
_BUCKET = "bench-staging"
_VECTOR_STORES = {"pgvector": 0.01, "opensearch": 0.05, "documentdb": 0.05}
_PROBED = {"pgvector": None, "opensearch": 4, "documentdb": 4}
"""Rows that are polled until one shows: reading 50 documents 40 times a second slowed OpenSearch's writes."""
_MOST_ROWS = 50
_SLOW_SECONDS = 0.5
_LOAD_SECONDS = 180.0
_DRAIN_SECONDS = 100.0
_IN_WAREHOUSE = "SELECT id, nonce, body FROM bench.articles WHERE id = ANY(%s)"


def main() -> None:
    """Run both in turn and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store_freshness")
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--runs", type=int, default=3)
    chosen = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {"alone": [], "all": []}
    with servers([*PARTS, "instant-model", "opensearch", "documentdb", "redshift"]) as stack:
        stack.aws.client("s3").create_bucket(Bucket=_BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        for run in range(chosen.runs):
            for name, measured in runs.items():
                console.print(
                    f"run {run + 1} of {chosen.runs}: {name}, {chosen.rate:g} changes/s for {chosen.seconds:g} s"
                )
                measured.append(measure(stack, alone=name == "alone", rate=chosen.rate, seconds=chosen.seconds))
                console.print_json(json.dumps(measured[-1]))
    print(json.dumps(summary(runs, chosen)))


def measure(stack: Stack, *, alone: bool, rate: float, seconds: float) -> dict[str, Any]:
    """One run on a fresh source and fresh stores."""
    name = unique("bench")
    with new_databases(stack, "postgres", "vectors", "redshift") as (source, vectors, warehouse):
        workload.prepare(source, ROWS)
        with captured(stack, PEERS["ragstream"], source, name, "kafka") as environment:
            config = configured(stack, name, vectors, "" if alone else warehouse, environment)
            with child(stack, two_drivers(config), {}, name):
                return commit(stack, load_config(config), (source, warehouse), rate, seconds)


def configured(stack: Stack, name: str, vectors: str, warehouse: str, captured_in: Mapping[str, str]) -> Path:
    """Write the pipeline of `benchmarks.peers`, with the other stores where a warehouse is given."""
    folder = stack.directory / "run" / name
    folder.mkdir(parents=True)
    model = stack.service("instant-model").endpoint["endpoint_url"]
    configuration = pipeline({
        "WORK_DIR": str(folder), "BOOTSTRAP": stack.broker.endpoint["bootstrap_servers"], "MODEL_URL": model,
        "TARGET_DSN": vectors, **captured_in,
    })  # fmt: skip
    if warehouse:
        access, place = stack.aws.endpoint, psycopg.conninfo.conninfo_to_dict(warehouse)
        configuration["sinks"] += [
            {"type": "opensearch", "url": stack.service("opensearch").endpoint["url"], "index": name, "replicas": 0},
            {"type": "documentdb", "uri": stack.service("documentdb").endpoint["uri"], "database": name, "collection": "b"},
        ]  # fmt: skip
        configuration["warehouse"] = {
            "type": "redshift", "host": place["host"], "port": int(str(place["port"])), "database": place["dbname"],
            "user": place["user"], "password": place["password"], "ssl": False, "schema": "bench",
            "staging": f"s3://{_BUCKET}/{name}", "region": access["region"], "endpoint_url": access["endpoint_url"],
            "access_key": access["access_key"], "secret_key": access["secret_key"],
        }  # fmt: skip
    config = folder / "pipeline.yaml"
    config.write_text(yaml.safe_dump(configuration))
    return config


def commit(
    stack: Stack, config: PipelineConfig, databases: tuple[str, str], rate: float, seconds: float
) -> dict[str, Any]:
    """Load, warm up, commit, drain, compare."""
    source, warehouse = databases
    for sink in config.sinks:
        _wait_loaded(sink)
    pollers = {
        sink.name: Poller(_in_store(sink), _VECTOR_STORES[sink.name], _MOST_ROWS, _PROBED[sink.name])
        for sink in config.sinks
    }
    if config.warehouse is not None:
        workload.wait_loaded(warehouse, "SELECT 1 FROM bench.articles", ROWS, _LOAD_SECONDS)
        pollers["delta"] = Poller(_in_lake(config.lake.path), _SLOW_SECONDS, deletes=False)
        pollers["redshift"] = Poller(workload.by_query(warehouse, _IN_WAREHOUSE), _SLOW_SECONDS, deletes=False)
    for poller in pollers.values():
        poller.start()
    committer, texts = workload.Committer(source, list(pollers.values())), texts_sent(stack)
    committer.run(rate, workload.WARM_SECONDS)
    before, since = cpu_seconds(stack.directory), time.time()
    committer.run(rate, seconds)
    ended = time.time()
    cpu = spent(before, cpu_seconds(stack.directory), ended - since)
    while any(poller.awaited for poller in pollers.values()) and time.time() - ended < _DRAIN_SECONDS:
        time.sleep(0.1)
    for poller in pollers.values():
        poller.halt()
    needed = committer.kinds["text"] + committer.kinds["insert"]
    return {
        "stores": {
            name: workload.percentiles(poller, since) | {"lost": sum(map(len, poller.awaited.values()))}
            for name, poller in pollers.items()
        },
        "texts_per_needed": round((texts_sent(stack) - texts) / needed, 3), "late": committer.late,
        "wrong": {sink.name: _wrong(sink, source) for sink in config.sinks}, "cpu_s_per_100s": cpu,
        "load_average": round(os.getloadavg()[0], 2),
    }  # fmt: skip


def summary(runs: dict[str, list[dict[str, Any]]], chosen: argparse.Namespace) -> dict[str, Any]:
    """The medians of the runs, and each vector store's over pgvector's alone."""

    def medians(name: str, store: str) -> dict[str, float]:
        freshness = [run["stores"][store]["ms_p50_p90_p99"] for run in runs[name]]
        return {q: statistics.median(run[at] for run in freshness) for at, q in enumerate(("p50", "p90", "p99"))}

    alone = medians("alone", "pgvector")
    figures = {store: medians("all", store) for store in runs["all"][0]["stores"]}
    ratios = {store: {q: round(figures[store][q] / alone[q], 3) for q in ("p50", "p99")} for store in _VECTOR_STORES}
    versions = {name: importlib.metadata.version(name) for name in ("pyspark", "psycopg", "opensearch-py", "pymongo")}
    return {
        "benchmark": "store-freshness", "rate": chosen.rate, "seconds": chosen.seconds, "ms": figures, "ms_pgvector_alone": alone,
        "ratios": ratios, "runs": runs, "machine": {"cores": os.cpu_count(), "machine": platform.machine()},
        "versions": versions,
    }  # fmt: skip


@contextmanager
def _in_store(sink: SinkConfig) -> Iterator[Look]:
    """Poll a vector store as its readers do."""
    reader = open_reader(sink)

    def look(ids: Sequence[int]) -> dict[int, tuple[int | None, str | None]]:
        names = {row_id(TABLE, number): number for number in ids}
        return {names[name]: (seen.metadata["nonce"], seen.text) for name, seen in reader.seen(list(names)).items()}

    yield look
    reader.close()


@contextmanager
def _in_lake(path: str) -> Iterator[Look]:
    """Poll the lake, reading the files that came since the last poll."""
    table, known = DeltaTable(LakeLayout(path).path("changes")), set[str]()
    newest: dict[int, tuple[str, int, str]] = {}

    def look(_: Sequence[int]) -> dict[int, tuple[int | None, str | None]]:
        table.update_incremental()
        files = [file for file in table.file_uris() if file not in known]
        known.update(files)
        rows = ds.dataset(files).to_table(["_sequence", "value"]).to_pylist() if files else []
        for row in rows:
            after = json.loads(row["value"] or "{}").get("payload", {}).get("after")
            if after is not None and row["_sequence"] > newest.get(after["id"], ("",))[0]:
                newest[after["id"]] = (row["_sequence"], after["nonce"], after["body"])
        return {number: (nonce, body) for number, (_, nonce, body) in newest.items()}

    look(())
    yield look


def _wait_loaded(sink: SinkConfig) -> None:
    until = time.monotonic() + _LOAD_SECONDS
    reader = open_reader(sink)
    try:
        while reader.count() < ROWS:
            if time.monotonic() > until:
                raise TimeoutError(f"the initial load did not show in {sink.name}")
            time.sleep(0.25)
    finally:
        reader.close()


def _wrong(sink: SinkConfig, source: str) -> int:
    """The number of source rows that readers see wrongly or not at all, and of documents without a row."""
    with psycopg.connect(source) as connection:
        query = "SELECT id, nonce, status, title || E'\\n\\n' || body FROM articles"
        wanted = {row_id(TABLE, row[0]): row[1:] for row in connection.execute(query)}
    reader = open_reader(sink)
    seen, stored = reader.seen(list(wanted)), reader.count()
    reader.close()
    rows = {
        name: (document.metadata["nonce"], document.metadata["status"], document.text)
        for name, document in seen.items()
    }
    return sum(rows.get(name) != row for name, row in wanted.items()) + max(0, stored - len(seen))


if __name__ == "__main__":
    main()

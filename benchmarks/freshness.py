"""Commit → searchable: `make bench-freshness`. One workload, ours and the peers in turn, on servers started here.

    python -m benchmarks.freshness [--peers ragstream,ragstream-micro,ragstream-one,flink,spark] [--rate 50]
                                   [--seconds 60] [--runs 1] [--way kafka|kinesis]

`flink` needs `make peers`. Ends in one line of JSON: percentiles in milliseconds for each run, ratios of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from rich.console import Console

from benchmarks import workload
from benchmarks.peers import PEERS, ROOT, Peer
from benchmarks.servers import servers
from local_stack.connect import Connect, request_json
from local_stack.processes import MARK
from local_stack.stack import Stack
from local_stack.testing import create_stream, new_database, unique
from sources.capture import render
from sources.capture_debezium import DebeziumCaptureConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = 2_000
PARTS = ("postgres", "vectors", "kafka", "connect", "aws")
"""What a run needs beside a model: `instant-model`, or `model` for the real one."""
console = Console(stderr=True)


def main() -> None:
    """Run the peers in turn and print the figures."""
    parser = argparse.ArgumentParser(description="commit to searchable")
    parser.add_argument("--peers", default="ragstream,ragstream-micro,flink,spark")
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--way", choices=["kafka", "kinesis"], default="kafka")
    chosen = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen.peers.split(",")}
    with servers([*PARTS, "instant-model"]) as stack:
        for run in range(chosen.runs):
            for name, found in results.items():
                console.print(
                    f"run {run + 1} of {chosen.runs}: {name}, {chosen.rate:g} changes/s for {chosen.seconds:g} s"
                )
                found.append(measure(stack, PEERS[name], chosen.rate, chosen.seconds, chosen.way))
                console.print_json(json.dumps(found[-1]))
    print(json.dumps(summary(results, chosen)))


def measure(stack: Stack, peer: Peer, rate: float, seconds: float, way: str) -> dict[str, Any]:
    """One peer, one run, fresh source and target."""
    with running(stack, peer, way) as (source, target):
        return commit(stack, peer, source, target, rate, seconds)


@contextmanager
def running(
    stack: Stack, peer: Peer, way: str, model: str = "instant-model", **environment: str
) -> Iterator[tuple[str, str]]:
    """A peer over a fresh source and target, which are yielded; `environment` is the peer's own."""
    source_server, target_server = stack.service("postgres"), stack.service("vectors")
    sources, targets = new_database(source_server), new_database(target_server)  # type: ignore[arg-type]
    source, target = next(sources), next(targets)
    name = unique("bench")
    try:
        workload.prepare(source, ROWS, whole_rows=peer.whole_rows)
        with psycopg.connect(target, autocommit=True) as connection:
            for statement in peer.create:
                connection.execute(statement.encode())
        environment |= {"MODEL_URL": stack.service(model).endpoint["endpoint_url"]}
        with captured(stack, peer, source, name, way) as place, started(stack, peer, target, name, environment | place):
            yield source, target
    finally:
        for database in (sources, targets):
            next(database, None)


@contextmanager
def captured(stack: Stack, peer: Peer, source: str, name: str, way: str) -> Iterator[dict[str, str]]:
    """Capture the table into a topic or a stream of its own; yields the environment that names it."""
    if way == "kinesis":
        aws = stack.service("aws")
        access, stream = aws.endpoint, create_stream(aws, 1)  # type: ignore[arg-type]
        command = [
            sys.executable, "-m", "local_stack.dms", "--dsn", source, "--table", "public.articles", "--stream", stream,
            "--endpoint-url", access["endpoint_url"], "--region", access["region"], "--slot", name,
        ]  # fmt: skip
        with child(stack, command, {}, f"{name}-dms"):
            yield {
                "STREAM": stream, "AWS_REGION": access["region"], "AWS_ENDPOINT_URL": access["endpoint_url"],
                "AWS_ACCESS_KEY_ID": access["access_key"], "AWS_SECRET_ACCESS_KEY": access["secret_key"],
            }  # fmt: skip
        return
    connect = stack.service("connect")
    assert isinstance(connect, Connect)  # noqa: S101
    topic = f"{name}.public.articles"
    stack.broker.create_topic(topic, 1)
    capture = DebeziumCaptureConfig.model_validate(
        {"type": "debezium", "dsn": source, "connector": name, "topic_prefix": name, "replication_factor": 1}
    )
    settings = render(capture, name, ["public.articles"], [topic], reveal=True)["connector"]["config"]
    if not peer.schemas:
        settings = settings | {"value.converter.schemas.enable": "false"}
    connect.put_connector(name, settings)
    yield {"TOPIC": topic}
    connect.delete_connector(name)


@contextmanager
def started(stack: Stack, peer: Peer, target: str, name: str, given: dict[str, str]) -> Iterator[None]:
    """Run the peer for the length of the block."""
    folder = stack.directory / "run" / name
    folder.mkdir(parents=True)
    jars = sorted(Path(os.environ.get("RAGSTREAM_CACHE", Path.home() / ".cache/ragstream")).glob("jars/flink-*/"))
    environment = {
        "BOOTSTRAP": stack.broker.endpoint["bootstrap_servers"], "TARGET_DSN": target, "WORK_DIR": str(folder), "NAME": name,
        "FLINK_JARS_DIR": str(jars[0]) if jars else "", "TOPIC": "", **given,
    }  # fmt: skip
    with child(stack, peer.command(environment), environment, name):
        yield


@contextmanager
def child(stack: Stack, command: list[str], environment: dict[str, str], name: str) -> Iterator[None]:
    """A process group that ends with the block; its output goes to a file of the stack's."""
    log = stack.directory / f"{name}.log"
    mark = {MARK: str(stack.directory / "run" / name), "PYTHONPATH": str(ROOT)}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env={**os.environ, **environment, **mark}, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            start_new_session=True, cwd=ROOT,
        )  # fmt: skip
    failed = True
    try:
        yield
        failed = process.poll() is not None
    finally:
        if failed:
            console.print(log.read_text(errors="replace")[-2000:], markup=False)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def commit(stack: Stack, peer: Peer, source: str, target: str, rate: float, seconds: float) -> dict[str, Any]:
    """Load, warm up, commit, drain, compare."""
    loaded = workload.wait_loaded(target, peer.target, ROWS, 180)
    model = stack.service("instant-model").endpoint["endpoint_url"]
    before = request_json(model, "GET", "/counters")[1]
    poller, committer = observed(peer, source, target)
    began = time.time()
    committer.run(rate, workload.WARM_SECONDS + seconds)
    poller.drain(workload.DRAIN_SECONDS)
    after = request_json(model, "GET", "/counters")[1]
    needed = committer.kinds["text"] + committer.kinds["insert"]
    return {
        **workload.percentiles(poller, began + workload.WARM_SECONDS), "measured_since": began + workload.WARM_SECONDS,
        "initial_load_s": round(loaded, 1), "late": committer.late, "lost": sum(map(len, poller.awaited.values())),
        "texts_per_needed": round((after["texts"] - before["texts"]) / max(1, needed), 3),
        "wrong": workload.wrong_rows(source, target, peer.target), "load_average": os.getloadavg()[0],
    }  # fmt: skip


def observed(peer: Peer, source: str, target: str) -> tuple[workload.Poller, workload.Committer]:
    """What commits into the source, and what watches the target for it, already polling."""
    query = f"SELECT id, nonce, txt FROM ({peer.target}) t WHERE {peer.primary_key} = ANY(%s)"  # noqa: S608 - ours
    poller = workload.Poller(workload.by_query(target, query, peer.row_name), most=workload.LOOK_ROWS)
    poller.start()
    return poller, workload.Committer(source, [poller])


def summary(results: dict[str, list[dict[str, Any]]], chosen: argparse.Namespace) -> dict[str, Any]:
    """The medians of the runs, and ours over each peer's."""

    def median(name: str, index: int) -> float | None:
        values = [run["ms_p50_p90_p99"][index] for run in results[name] if run["ms_p50_p90_p99"]]
        return statistics.median(values) if values else None

    figures = {name: {"p50": median(name, 0), "p90": median(name, 1), "p99": median(name, 2)} for name in results}
    ours = figures.get("ragstream", {})
    ratios = {
        f"{q}_over_{name}": round(mine / theirs, 3)
        for name, theirs_all in figures.items()
        if name != "ragstream"
        for q in ("p50", "p99")
        if (mine := ours.get(q)) and (theirs := theirs_all[q])
    }
    return {
        "benchmark": "freshness", "way": chosen.way, "rate": chosen.rate, "seconds": chosen.seconds, "ms": figures,
        "ratios": ratios, "runs": results, "machine": {"cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), "spark": "4.1.1", "delta": "4.2.0"},
    }  # fmt: skip


if __name__ == "__main__":
    main()

"""Latency from commit to searchable: `make bench-freshness`. One workload over our pipeline and the peers in turn.

    python -m benchmarks.freshness [--peers ragstream,ragstream-plain,ragstream-one,flink,spark,cocoindex,pathway]
                                   [--rates 50,200] [--seconds 60] [--runs 3] [--way kafka|kinesis]

The rivals need `make peers`. Over Kinesis there is ours alone, and the bound that half a fetch interval sets. Ends in one line of
JSON: for each rate percentiles in milliseconds and CPU of each run, medians of the runs, and ratios of the medians.
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
from benchmarks.cpu import cpu_seconds, spent
from benchmarks.peers import FETCH_INTERVAL_MS, PEERS, ROOT, VENVS, Peer, python_of
from benchmarks.servers import servers
from local_stack.processes import MARK
from local_stack.servers.connect import Connect, request_json
from local_stack.stack import Stack
from sources.capture.debezium import DebeziumCaptureConfig
from sources.capture.rendering import render
from tests.servers import create_stream, new_database, unique

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS = "ragstream,ragstream-plain"
ROWS = 2_000
PARTS = ("postgres", "vectors", "kafka", "connect", "aws")
"""Parts of a run beside the model (`instant-model`, or `model` for the real one)."""
console = Console(stderr=True)


def main() -> None:
    """Run the peers in turn and print the figures."""
    parser = argparse.ArgumentParser(description="commit to searchable")
    parser.add_argument("--peers")
    parser.add_argument("--rates", default="50,200")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--way", choices=["kafka", "kinesis"], default="kafka")
    chosen = parser.parse_args()
    names = (chosen.peers or (OURS if chosen.way == "kinesis" else f"{OURS},flink,spark,cocoindex,pathway")).split(",")
    if missing := [name for name in names if name in VENVS and not python_of(name).exists()]:
        parser.error(f"not installed: {', '.join(missing)}: make peers")
    results: dict[str, dict[str, list[dict[str, Any]]]] = {
        rate: {name: [] for name in names} for rate in chosen.rates.split(",")
    }
    with servers([*PARTS, "instant-model"]) as stack:
        for run in range(chosen.runs):
            for rate, of_rate in results.items():
                for name, runs in of_rate.items():
                    console.print(f"run {run + 1} of {chosen.runs}: {name}, {rate} changes/s for {chosen.seconds:g} s")
                    runs.append(measure(stack, PEERS[name], float(rate), chosen.seconds, chosen.way))
                    console.print_json(json.dumps(runs[-1]))
    bound = {"fetch_interval_ms": FETCH_INTERVAL_MS, "p50_bound_ms": FETCH_INTERVAL_MS // 2 + 30}
    print(json.dumps({
        "benchmark": "freshness", "way": chosen.way, "seconds": chosen.seconds, **(bound if chosen.way == "kinesis" else {}),
        "rates": {rate: summary(of_rate) for rate, of_rate in results.items()}, "machine": {"cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), "spark": "4.1.1", "delta": "4.2.0"},
    }))  # fmt: skip


def measure(stack: Stack, peer: Peer, rate: float, seconds: float, way: str) -> dict[str, Any]:
    """One run of one peer on a fresh source and target; a failure of a peer does not end the others."""
    try:
        with running(stack, peer, way) as (source, target):
            return commit(stack, peer, source, target, rate, seconds)
    except (TimeoutError, psycopg.Error) as error:
        return {"ms_p50_p90_p99": None, "failed": repr(error)}


@contextmanager
def running(
    stack: Stack, peer: Peer, way: str, model: str = "instant-model", **environment: str
) -> Iterator[tuple[str, str]]:
    """Run a peer over a fresh source and target, which are yielded; `environment` is the peer's own."""
    name = unique("bench")
    with new_databases(stack, "postgres", "vectors") as (source, target):
        workload.prepare(source, ROWS, whole_rows=peer.whole_rows, copied_key=peer.copied_key)
        with psycopg.connect(target, autocommit=True) as connection:
            for statement in peer.create:
                connection.execute(statement.encode())
        environment |= {"MODEL_URL": stack.service(model).endpoint["endpoint_url"]}
        with captured(stack, peer, source, name, way) as place, started(stack, peer, target, name, environment | place):
            yield source, target


@contextmanager
def new_databases(stack: Stack, *servers: str) -> Iterator[list[str]]:
    """The DSN of a new database on each of these servers; afterwards they are dropped."""
    databases = [new_database(stack.service(name)) for name in servers]  # type: ignore[arg-type]
    dsns = [next(database) for database in databases]
    try:
        yield dsns
    finally:
        for database in databases:
            next(database, None)


@contextmanager
def captured(stack: Stack, peer: Peer, source: str, name: str, way: str) -> Iterator[dict[str, str]]:
    """Capture the table into a topic or stream of its own; yields the environment variables that name it."""
    if way == "kinesis":
        aws = stack.service("aws")
        access, stream = aws.endpoint, create_stream(aws, 1)  # type: ignore[arg-type]
        command = [
            sys.executable, "-m", "local_stack.standins.dms.task", "--dsn", source, "--table", "public.articles",
            "--stream", stream, "--endpoint-url", access["endpoint_url"], "--region", access["region"], "--slot", name,
        ]  # fmt: skip
        with child(stack, command, {}, f"{name}-dms", "dms"):
            yield {
                "STREAM": stream, "AWS_REGION": access["region"], "AWS_ENDPOINT_URL": access["endpoint_url"],
                "AWS_ACCESS_KEY_ID": access["access_key"], "AWS_SECRET_ACCESS_KEY": access["secret_key"],
            }  # fmt: skip
        return
    topic = f"{name}.public.articles"
    stack.broker.create_topic(topic, 1)
    with connected(stack, peer, source, name, topic):
        yield {"TOPIC": topic}


@contextmanager
def connected(stack: Stack, peer: Peer, source: str, name: str, topic: str) -> Iterator[None]:
    """Run Debezium's connector for the table into a topic that is there."""
    connect = stack.service("connect")
    assert isinstance(connect, Connect)  # noqa: S101
    capture = DebeziumCaptureConfig.model_validate(
        {"type": "debezium", "dsn": source, "connector": name, "topic_prefix": name, "replication_factor": 1}
    )
    settings = render(capture, name, ["public.articles"], [topic], reveal=True)["connector"]["config"]
    settings |= {f"{part}.converter.schemas.enable": str(part in peer.schemas).lower() for part in ("key", "value")}
    connect.put_connector(name, settings)
    yield
    connect.delete_connector(name)


@contextmanager
def started(stack: Stack, peer: Peer, target: str, name: str, variables: dict[str, str]) -> Iterator[None]:
    """Run the peer for the length of the block."""
    folder = stack.directory / "run" / name
    folder.mkdir(parents=True)
    jars = sorted(Path(os.environ.get("RAGSTREAM_CACHE", Path.home() / ".cache/ragstream")).glob("jars/flink-*/"))
    environment = {
        "BOOTSTRAP": stack.broker.endpoint["bootstrap_servers"], "TARGET_DSN": target, "WORK_DIR": str(folder), "NAME": name,
        "FLINK_JARS_DIR": str(jars[0]) if jars else "", "TOPIC": "", **variables,
    }  # fmt: skip
    with child(stack, peer.command(environment), environment, name):
        yield


@contextmanager
def child(
    stack: Stack, command: list[str], environment: dict[str, str], name: str, role: str = "peer"
) -> Iterator[None]:
    """A process group that ends with the block; its output goes to a file of the stack, its CPU counts for its role."""
    log = stack.directory / f"{name}.log"
    environment = {"PYTHONPATH": str(ROOT), **environment, MARK: str(stack.directory / "run" / role)}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
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
    texts, (poller, committer) = texts_sent(stack), observed(peer, source, target)
    committer.run(rate, workload.WARM_SECONDS)
    before, began = cpu_seconds(stack.directory), time.time()
    committer.run(rate, seconds)
    cpu = spent(before, cpu_seconds(stack.directory), time.time() - began)
    poller.drain(workload.DRAIN_SECONDS)
    needed = committer.kinds["text"] + committer.kinds["insert"]
    return {
        **workload.percentiles(poller, began), "measured_since": began,
        "initial_load_s": round(loaded, 1), "late": committer.late, "lost": sum(map(len, poller.awaited.values())),
        "texts_per_needed": round((texts_sent(stack) - texts) / max(1, needed), 3),
        "wrong": workload.wrong_rows(source, target, peer.target), "cpu_s_per_100s": cpu, "load_average": os.getloadavg()[0],
    }  # fmt: skip


def texts_sent(stack: Stack) -> int:
    """Texts that the instant model has embedded so far."""
    sent: int = request_json(stack.service("instant-model").endpoint["endpoint_url"], "GET", "/counters")[1]["texts"]
    return sent


def observed(peer: Peer, source: str, target: str) -> tuple[workload.Poller, workload.Committer]:
    """The committer of the source, and the started poller of the target."""
    query = f"SELECT id, nonce, txt FROM ({peer.target}) t WHERE {peer.primary_key} = ANY(%s)"  # noqa: S608 - ours
    poller = workload.Poller(workload.by_query(target, query, peer.row_name), most=workload.LOOK_ROWS)
    poller.start()
    return poller, workload.Committer(source, [poller])


def summary(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The medians of the runs at a rate, and our median over each peer's."""

    def median(name: str, index: int) -> float | None:
        values = [run["ms_p50_p90_p99"][index] for run in runs[name] if run["ms_p50_p90_p99"]]
        return statistics.median(values) if values else None

    figures = {name: {"p50": median(name, 0), "p90": median(name, 1), "p99": median(name, 2)} for name in runs}
    ours = figures.get("ragstream", {})
    ratios = {
        f"{q}_over_{name}": round(mine / theirs, 3)
        for name, theirs_all in figures.items()
        if name != "ragstream"
        for q in ("p50", "p99")
        if (mine := ours.get(q)) and (theirs := theirs_all[q])
    }
    return {"ms": figures, "ratios": ratios, "runs": runs}


if __name__ == "__main__":
    main()

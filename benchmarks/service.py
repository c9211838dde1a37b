"""A pipeline that indexes while it is asked, its service as a process of its own, and a client of that."""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from benchmarks import workload
from benchmarks.freshness import ROWS, captured, child, new_databases
from benchmarks.peers import PEERS
from benchmarks.peers import pipeline as configuration
from local_stack.demo.pipeline import SERVING
from local_stack.stack import Stack
from tests.servers import unique

START_SECONDS = 60.0
SILENT_SECONDS = 2.0
"""After which a connection is opened anew: uvicorn closes one that was silent for 5 s."""


@dataclass(frozen=True)
class RunningPipeline:
    """A pipeline whose index job runs, with the addresses of its source and store."""

    stack: Stack
    source: str
    store: str
    config: Path

    def served(self, name: str, **changes: Any) -> Path:
        """A configuration of the service over the pipeline's store."""
        file = self.config.with_name(f"{name}.yaml")
        limits = {"burst": 1_000_000, "requests_per_minute": 10_000_000, "concurrent": 64, "concurrent_per_caller": 64}
        settings = yaml.safe_load(self.config.read_text()) | {
            "retrieval": {"min_similarity": -1},
            "serve": {"limits": limits},
        }
        file.write_text(yaml.safe_dump(settings | changes))
        return file


@contextmanager
def running(stack: Stack) -> Iterator[RunningPipeline]:
    """A pipeline whose index job runs, over a fresh source and store."""
    name = unique("bench")
    folder = stack.directory / "run" / name
    folder.mkdir(parents=True)
    with new_databases(stack, "postgres", "vectors") as (source, store):
        workload.prepare(source, ROWS)
        with captured(stack, PEERS["ragstream"], source, name, "kafka") as captured_in:
            config = folder / "pipeline.yaml"
            config.write_text(yaml.safe_dump(configuration({
                "WORK_DIR": str(folder), "BOOTSTRAP": stack.broker.endpoint["bootstrap_servers"], "TARGET_DSN": store,
                "MODEL_URL": stack.service("instant-model").endpoint["endpoint_url"], **captured_in,
            })))  # fmt: skip
            command = [sys.executable, "-m", "glue_jobs", "run", str(config), "--jobs", "index"]
            with child(stack, command, {}, name, "writer"):
                workload.wait_loaded(store, PEERS["ragstream"].target, ROWS, 180)
                yield RunningPipeline(stack, source, store, config)


@contextmanager
def changing(pipeline: RunningPipeline, rate: float) -> Iterator[workload.Committer]:
    """Commit the mix of changes at a rate for the length of the block; rows that others insert meanwhile are left alone."""
    committer = workload.Committer(pipeline.source, [])
    thread = threading.Thread(target=committer.run, args=(rate, 86_400))
    thread.start()
    try:
        time.sleep(workload.WARM_SECONDS)
        yield committer
    finally:
        committer.stopped.set()
        thread.join()


@contextmanager
def service(pipeline: RunningPipeline, config: Path) -> Iterator[str]:
    """`ragstream serve` of a configuration; yields its address."""
    name = unique("serve")
    command = [sys.executable, "-m", "glue_jobs", "serve", str(config), "--port", "0"]
    with child(pipeline.stack, command, {}, name, "serve"):
        log, until = pipeline.stack.directory / f"{name}.log", time.monotonic() + START_SECONDS
        while not (line := SERVING.search(log.read_text(errors="replace"))):
            if time.monotonic() > until:
                raise TimeoutError(f"the service did not answer: {log.read_text()[-500:]}")
            time.sleep(0.05)
        yield line[1]


class Client:
    """One caller of the service, over one connection."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        self._used_at = 0.0

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """An answer in one object."""
        with closing(self.opened(path, body, "application/json")) as response:
            answer: dict[str, Any] = json.loads(response.read())
            return answer

    def events(self, path: str, body: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Events as they come."""
        name = ""
        with closing(self.opened(path, body, "text/event-stream")) as response:
            for line in response:
                kind, _, text = line.decode().rstrip("\n").partition(": ")
                name = text if kind == "event" else name
                if kind == "data":
                    yield name, json.loads(text)

    def opened(self, path: str, body: Mapping[str, Any], accept: str) -> http.client.HTTPResponse:
        """A response whose status is 200."""
        headers = {"Content-Type": "application/json", "Accept": accept}
        if time.monotonic() - self._used_at > SILENT_SECONDS:
            self._connection.close()
        self._used_at = time.monotonic()
        self._connection.request("POST", path, json.dumps(body), headers)
        response = self._connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {response.read().decode()}")
        return response

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

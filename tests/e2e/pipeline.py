"""One pipeline in a folder of its own: its configuration, its drivers as child processes, and what it left where."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
from deltalake import DeltaTable, QueryBuilder

from glue_jobs.config.pipeline import PipelineConfig, decode_contexts, parse_config
from glue_jobs.config.values import Substitution
from lake.history.current import current_rows
from lake.layout import RESERVED, LakeLayout
from local_stack import processes
from local_stack.servers.connect import request_json
from schemas.tables import TableConfig
from sinks.pgvector.config import PgvectorConfig
from tests.e2e.breakpoints import Breakpoints
from tests.e2e.rows import Documents, Kinds, Rows, differences, documents_of, in_one_form, stored_documents
from tests.waiting import NothingWrong, eventually

ROOT = Path(__file__).resolve().parents[2]
RAGSTREAM = Path(sys.executable).with_name("ragstream")
START_SECONDS = 240.0
"""Until a driver that was started has done something; a shared machine can be slow."""
VIEW = "e2e"

type Source = Callable[[TableConfig], tuple[Rows, Kinds]]
"""Tells the rows a table has now, and the types of its columns."""


@dataclass
class Driver:
    """A driver that runs, or ran: the leader of a session of its own, which all that it starts belongs to."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL all of its processes, as the end of the machine would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
        for process in processes.in_session(self.process.pid):
            process.send(signal.SIGKILL)

    def kill_alone(self) -> None:
        """SIGKILL the driver and none of those it started."""
        self.process.kill()
        self.process.wait(30)

    def children(self, words: str) -> list[processes.Process]:
        """Its processes that run now and have these words in their command line."""
        return [process for process in processes.in_session(self.process.pid) if words in process.command]

    @property
    def readers(self) -> list[processes.Process]:
        """The readers of its executors."""
        return self.children("reader.process")

    @property
    def workers(self) -> list[processes.Process]:
        """The Python workers of its executors: children of a daemon whose command line they share."""
        daemons = {process.pid for process in self.children("pyspark.daemon")}
        return [process for process in self.children("pyspark.daemon") if process.parent in daemons]

    def stop(self, seconds: float = 90.0) -> int:
        """Ask it to stop, as an operator does; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def wait(self, seconds: float = START_SECONDS) -> int:
        return self.process.wait(seconds)

    def events(self) -> list[dict[str, Any]]:
        """Its log lines."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith('{"ts"')]

    def logged(self, message: str, **context: object) -> list[dict[str, Any]]:
        """Its log lines with a message and a context."""
        return [e for e in self.events() if e["msg"] == message and context.items() <= e.items()]


@dataclass
class Pipeline:
    """A configuration, and what its drivers left."""

    folder: Path
    document: dict[str, Any]
    """The configuration; written to a file as JSON, which YAML is."""
    environment: dict[str, str] = field(default_factory=dict)
    mark: str = ""
    """The stack whose guardian ends these processes when the test run is killed."""
    drivers: list[Driver] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write(self.document)

    @property
    def path(self) -> Path:
        return self.folder / "pipeline.yaml"

    @cached_property
    def breakpoints(self) -> Breakpoints:
        """Where the processes of a driver that was started with `breakpoints` stop."""
        folder = self.folder / "breakpoints"
        folder.mkdir(exist_ok=True)
        return Breakpoints(str(folder))

    def write(self, document: dict[str, Any]) -> None:
        """Write another configuration."""
        self.document = document
        self.path.write_text(json.dumps(document, indent=1, ensure_ascii=False))
        self.__dict__.pop("_config", None)

    @property
    def config(self) -> PipelineConfig:
        if "_config" not in self.__dict__:
            references = Substitution(self.environment, self.folder / ".ragstream")
            self.__dict__["_config"] = parse_config(self.path.read_text(), str(self.path), references)
        parsed: PipelineConfig = self.__dict__["_config"]
        return parsed

    @property
    def layout(self) -> LakeLayout:
        return LakeLayout(self.config.lake.path)

    def table_config(self, table: str) -> TableConfig:
        return next(t for t in self.config.tables if t.table == table)

    # drivers

    def start(self, *arguments: str, breakpoints: bool = False) -> Driver:
        """Start `ragstream run` as a child process; one with `breakpoints` stops where they are set."""
        stopping = [sys.executable, "-m", "tests.e2e.breakpoints", self.breakpoints.folder]
        return self._spawn([*(stopping if breakpoints else [str(RAGSTREAM)]), "run", str(self.path), *arguments])

    def submit(self, job: str, master: str) -> Driver:
        """Start a job file by spark-submit."""
        submit = RAGSTREAM.with_name("spark-submit")
        return self._spawn([str(submit), "--master", master, str(ROOT / "glue_jobs" / job), "--config", str(self.path)])

    def drain(self, *arguments: str) -> Driver:
        """Run until everything the source holds went through every job."""
        driver = self.start("--available-now", *arguments)
        driver.wait()
        return driver

    def drain_until(self, point: str, *arguments: str) -> None:
        """Run in the same way, and kill the driver at a breakpoint."""
        self.breakpoints.set(point)
        driver = self.start("--available-now", *arguments, breakpoints=True)
        self.await_reached(point)
        driver.kill()

    def await_reached(self, *points: str, seconds: float = START_SECONDS) -> list[int]:
        """Wait until a process of the driver stands at each of these breakpoints; their pids."""
        at = self.breakpoints.pid_at
        unreached = NothingWrong(lambda: [f"nothing reaches {p}" for p in points if at(p) is None])
        eventually(unreached, seconds, self.drivers[-1].process)
        return [pid for pid in map(at, points) if pid is not None]

    def command(self, *arguments: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run another `ragstream` command to its end."""
        command = [str(RAGSTREAM), arguments[0], str(self.path), *arguments[1:]]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def stop(self) -> None:
        """End every driver that still runs, at once."""
        for driver in self.drivers:
            driver.kill()

    def _spawn(self, command: Sequence[str]) -> Driver:
        log = self.folder / f"driver-{len(self.drivers)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self._environment(), stdout=file, stderr=file, start_new_session=True
            )
        self.drivers.append(Driver(process, log))
        return self.drivers[-1]

    def _environment(self) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SPARK_", "PYSPARK_"))
        }
        kept["PYSPARK_PYTHON"] = kept["PYSPARK_DRIVER_PYTHON"] = sys.executable
        return kept | {processes.MARK: self.mark, "PYTHONPATH": str(ROOT)} | self.environment

    # what it left

    def current(self, table: str) -> list[dict[str, Any]]:
        """What `ragstream table` prints, value for value."""
        return list(current_rows(self.layout, self.table_config(table), decode_contexts(self.config)))

    def rows(self, table: str, kinds: Kinds) -> Rows:
        """The same, in one form."""
        return in_one_form(self.current(table), self.table_config(table), kinds)

    def merged_rows(self, table: str, kinds: Kinds) -> Rows:
        """The rows of the Delta table that merge_tables keeps."""
        path = self.layout.table(table)
        if not DeltaTable.is_deltatable(path):
            return {}
        rows = QueryBuilder().register("t", DeltaTable(path)).execute("SELECT * FROM t")
        live = [row for batch in rows for row in _arrow(batch).to_pylist() if row["_op"] != "d"]
        plain = [{n: v for n, v in row.items() if n not in RESERVED} for row in live]
        return in_one_form(plain, self.table_config(table), kinds)

    def documents(self, table: str, kinds: Kinds) -> Documents:
        """What a reader of the vector store sees."""
        sink = self.config.sinks[0]
        assert isinstance(sink, PgvectorConfig)
        with psycopg.connect(sink.dsn.get_secret_value()) as connection:
            if connection.execute("SELECT to_regclass(%s)", [sink.table]).fetchone() == (None,):
                return {}
        return stored_documents(sink.dsn.get_secret_value(), sink.table, self.table_config(table), kinds)

    def delta(self, name: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Rows of one of the lake's own tables; none while it does not stand."""
        path = self.layout.path(name)
        if not DeltaTable.is_deltatable(path):
            return []
        read: list[dict[str, Any]] = DeltaTable(path).to_pyarrow_table(columns=list(columns)).to_pylist()
        return read

    def landed(self) -> Counter[tuple[str, str, str]]:
        """How often each record stands in `changes` or, undecodable, in `rejects`, by its coordinates."""
        coordinates = ["stream", "partition", "position"]
        rejects = [
            row
            for row in self.delta("rejects", [*coordinates, "stage", "column"])
            if row["stage"] == "decode" and row["column"] is None
        ]
        return Counter(
            (row["stream"], row["partition"], row["position"]) for row in self.delta("changes", coordinates) + rejects
        )

    def accounted(self) -> Counter[tuple[str, str]]:
        """Records landed, rejected and ignored, by stream and partition (I6)."""
        counted: Counter[tuple[str, str]] = Counter()
        for stream, partition, _ in self.landed().elements():
            counted[stream, partition] += 1
        for row in self.delta("ignored", ["stream", "partition", "records"]):
            counted[row["stream"], row["partition"]] += row["records"]
        return counted

    # comparing

    def wrong(self, source: Source, *, merged: bool = True) -> list[str]:
        """Where store, lake and tables differ from the source now; the quickest answer first, then no other is asked."""
        tables = [(table, *source(table)) for table in self.config.tables]
        for table, rows, kinds in tables:
            if table.document and self.config.sinks:
                wanted = documents_of(rows, table)
                if wrong := differences(wanted, self.documents(table.table, kinds), f"store {table.table}"):
                    return wrong
        for table, rows, kinds in tables:
            if wrong := differences(rows, self.rows(table.table, kinds), f"lake {table.table}"):
                return wrong
        for table, rows, kinds in tables if merged else ():
            if wrong := differences(rows, self.merged_rows(table.table, kinds), f"tables {table.table}"):
                return wrong
        return []

    def await_equal(self, source: Source, seconds: float = START_SECONDS, *, merged: bool = True) -> None:
        """Wait until everything equals the source, whose rows may not change meanwhile."""
        driver = self.drivers[-1].process if self.drivers else None
        eventually(NothingWrong(lambda: self.wrong(source, merged=merged)), seconds, driver)


def _arrow(batch: Any) -> Any:
    import pyarrow as pa

    return pa.record_batch(batch)


def counters(model_url: str) -> dict[str, Any]:
    """What the model endpoint was asked since its start."""
    status, answer = request_json(model_url, "GET", "/counters")
    assert status == 200
    counted: dict[str, Any] = answer
    return counted


def embedding(model_url: str, **changes: Any) -> dict[str, Any]:
    """The configuration of the instant model."""
    return {
        "type": "bedrock", "model": "amazon.titan-embed-text-v2:0", "dimensions": 512, "region": "eu-central-1",
        "endpoint_url": model_url, "access_key": "local", "secret_key": "local", **changes,
    }  # fmt: skip


@contextlib.contextmanager
def running(pipeline: Pipeline) -> Iterator[Pipeline]:
    """A pipeline whose drivers end with the block."""
    try:
        yield pipeline
    finally:
        pipeline.stop()


def lines(events: Sequence[Mapping[str, Any]]) -> str:
    """Recorded events as a file of them."""
    return "".join(f"{json.dumps(event, ensure_ascii=False)}\n" for event in events)

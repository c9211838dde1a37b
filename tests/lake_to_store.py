"""A lake, the stores fed beside it, and the model: what tests of the ways from lake to store share."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import batched
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from embeddings import EmbeddingCounts, open_embedder
from glue_jobs import land_changes
from glue_jobs.cli.main import main
from glue_jobs.config.pipeline import PipelineConfig, decode_context, parse_config
from glue_jobs.config.values import Substitution
from glue_jobs.operations.rebuild import Rebuild, RebuildCounts
from glue_jobs.operations.reconcile import Reconcile, Reconciled
from glue_jobs.runtime import JobContext
from glue_jobs.runtime.runner import run_queries
from glue_jobs.runtime.spark import session
from glue_jobs.status.index_reports import IndexReports
from glue_jobs.status.record import StatusRecords
from indexing.indexer import Indexer
from indexing.report import report_rows
from lake.landing.batch import Landing
from lake.layout import LakeLayout
from local_stack.servers.connect import request_json
from schemas.changes import Change
from schemas.records import Record
from sinks import SinkConfig, open_sink
from tests.history import TABLE, as_record
from tests.lake_fixtures import frame, transaction
from transforms.context import DecodeContext

MODEL = {"type": "bedrock", "model": "amazon.titan-embed-text-v2:0", "dimensions": 512, "region": "eu-central-1"}
ACCESS = {"access_key": "local", "secret_key": "local"}
RAGSTREAM = Path(sys.executable).with_name("ragstream")


class Lake:
    """A lake with changes in it, a store that was fed them live, and a model."""

    def __init__(self, folder: Path, dsn: str, model_url: str, *stores: Mapping[str, Any]) -> None:
        self.dsn, self.model_url, self.path = dsn, model_url, folder / "pipeline.yaml"
        document = {"template": "{body}", "metadata": ["a"], "chunk": {"max_tokens": 16}}
        self._configuration: dict[str, Any] = {
            "name": "rebuild",
            "source": {"type": "kafka", "envelope": "debezium", "bootstrap_servers": "127.0.0.1:9", "topics": ["away"]},
            "tables": [{"table": TABLE, "keys": ["id"], "document": document}],
            "lake": {"path": str(folder / "lake")},
            "checkpoint": str(folder / "checkpoint"),
            "embedding": {**MODEL, **ACCESS, "endpoint_url": model_url},
            "sinks": [{"type": "pgvector", "name": n, "dsn": dsn, "table": n} for n in ("live", "lost")] + list(stores),
        }
        self._configure()
        self.progress: list[tuple[str, str, int, int]] = []

    def add(self, **sink: str) -> None:
        """Give the pipeline one more store."""
        self._configuration["sinks"].append(sink)
        self._configure()

    def only(self, *sinks: Mapping[str, Any]) -> None:
        """Give the pipeline other stores."""
        self._configuration["sinks"] = [dict(sink) for sink in sinks]
        self._configure()

    def model(self, **embedding: Any) -> None:
        """Configure another model."""
        self._configuration["embedding"] |= embedding
        self._configure()

    def template(self, template: str) -> None:
        """Configure another template."""
        self._configuration["tables"][0]["document"]["template"] = template
        self._configure()

    def rules(self, **columns: str) -> None:
        """Give columns rules, or types."""
        self._configuration["tables"][0]["columns"] = columns
        self._configuration["hash_key"] = "a key of sixteen characters"
        self._configure()

    def change(self, **sections: Any) -> None:
        """Configure sections of the pipeline."""
        self._configuration |= sections
        self._configure()

    def keys(self, *keys: str) -> None:
        """Configure another key."""
        self._configuration["tables"][0]["keys"] = list(keys)
        self._configure()

    def language(self, language: str) -> None:
        """Configure the language of the rows."""
        self._configuration["tables"][0]["document"]["language"] = language
        self._configure()

    def epoch(self, at: str) -> None:
        """Configure an epoch of all sources, as for jobs that start now."""
        self.change(epochs=[{"at": at}])

    def _configure(self) -> None:
        self.path.write_text(json.dumps(self._configuration))
        parsed = parse_config(self.path.read_text(), str(self.path), Substitution({}, self.path.parent))
        assert parsed.embedding is not None
        self.config: PipelineConfig = parsed
        self.embedding, self.context = parsed.embedding, decode_context(parsed, parsed.sources[0].name)

    def land(
        self, spark: SparkSession, changes: Sequence[Change], batch: int = 0, context: DecodeContext | None = None
    ) -> None:
        """Land changes as the job does; by another context, as it would have before the configuration was mended."""
        layout, source = LakeLayout(self.config.lake.path), self.config.sources[0].name
        landing = Landing(layout, source, context or self.context)
        landing.land(frame(spark, map(as_record, changes)), transaction("land", batch))

    def read(self, *lines: str, **source: Any) -> None:
        """Read recorded events from now on, which these are added to."""
        events = self.path.with_name("events.jsonl")
        with events.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)
        files = {"type": "files", "format": "kafka", "envelope": "debezium", "path": [str(events)]}
        self.change(source=files | source)

    def drain(self, spark: SparkSession, job: ModuleType = land_changes) -> None:
        """Run a job, of landing by default, until it has all that its source holds."""
        context = JobContext(spark, self.config, available_now=True)
        run_queries(job.plan(context), context, threading.Event(), StatusRecords(self.config.checkpoint))

    def index(self, name: str, changes: Sequence[Change]) -> None:
        """Feed a store as the live job does, with its vectors to the cache and its rejects to the lake."""
        self.index_records(name, [as_record(change) for change in changes])

    def index_records(self, name: str, records: Sequence[Record]) -> None:
        embedder = open_embedder(self.embedding)
        with contextlib.closing(open_sink(self.sink(name), embedder.fingerprint, embedder.dimensions)) as sink:
            sink.prepare()
            indexer = Indexer(self.context, self.config.document_specs, [sink], embedder, texts_at_once=64)
            reports = IndexReports(self.config.lake.path, [sink], [])
            for batch in batched(records, 200):
                rows = report_rows(indexer.index(batch), EmbeddingCounts())
                reports.take(pa.Table.from_batches([rows]))
            reports.flush()

    def rebuild(self, spark: SparkSession, name: str) -> RebuildCounts:
        return Rebuild(
            spark, self.config, self.sink(name), self.embedding, lambda *progress: self.progress.append(progress)
        ).run()

    def reconcile(
        self,
        spark: SparkSession,
        name: str,
        *,
        repair: bool = False,
        force: bool = False,
        vectors: bool = True,
        pause: Callable[[float], None] = time.sleep,
    ) -> Reconciled:
        settings = (
            spark,
            self.config,
            self.sink(name),
            self.embedding,
            lambda *progress: self.progress.append(progress),
        )
        return Reconcile(*settings, vectors, settle_seconds=0.3, pause=pause).run(repair=repair, force=force)

    def sink(self, name: str) -> SinkConfig:
        return next(sink for sink in self.config.sinks if sink.name == name)

    def command(self, name: str) -> subprocess.Popen[bytes]:
        command = [str(RAGSTREAM), "rebuild", str(self.path), name]
        environment = self.environment()
        with self.path.with_suffix(".log").open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def ragstream(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command on this configuration to its end."""
        command, *options = arguments
        return subprocess.run(
            [str(RAGSTREAM), command, str(self.path), *options],
            env=self.environment(), capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip

    def in_session(self, spark: SparkSession, *arguments: str) -> subprocess.CompletedProcess[str]:
        """As `ragstream`, in this process: a command that starts Spark has this session in place of its own."""
        command, *options = arguments
        out, err = io.StringIO(), io.StringIO()
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(out))
            stack.enter_context(contextlib.redirect_stderr(err))
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(session, "open_session", lambda *_, **__: contextlib.nullcontext(spark))
            ended = stack.enter_context(pytest.raises(SystemExit))
            main([command, str(self.path), *options])
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), out.getvalue(), err.getvalue())

    @staticmethod
    def environment() -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn) as connection:
            return connection.execute(statement.encode()).fetchall()

    def contents(self, name: str) -> list[tuple[Any, ...]]:
        """All that readers of a store see, vectors included."""
        columns = "key::text, metadata::text, chunk_index, chunk_text, embedding::text, sequence"
        return self.rows(f"SELECT {columns} FROM {name} ORDER BY 1, 3")

    def count(self, name: str, part: str) -> int:
        """Rows of a part of a store that may not stand yet."""
        with contextlib.suppress(psycopg.errors.UndefinedTable):
            return int(self.rows(f"SELECT count(*) FROM {name}_g1_{part}")[0][0])
        return 0

    def asked(self) -> dict[str, Any]:
        """What the model was asked."""
        _, answer = request_json(self.model_url, "GET", "/counters")
        return dict(answer)

    def faults(self, **wanted: object) -> None:
        """Let the model do wrong, or nothing more."""
        status, _ = request_json(self.model_url, "POST", "/faults", wanted)
        assert status == 200

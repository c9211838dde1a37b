"""An archive of the classes that a driver's JVM loads: with it, a driver made here starts in about half the processor time.

    python -m tools.class_archive

writes it beside Spark's jars (class data sharing, JEP 350), by letting a small pipeline run once. A JVM takes no archive
that another version or other jars wrote, and then starts as without one.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from glue_jobs.runtime.spark.script import Options, plans_of, run_pipeline
from glue_jobs.runtime.spark.session import class_archive

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_ROWS = 50
_KAFKA_MS = "1000"
"""How long the Kafka client is let look for a broker that is not there."""
_EXIT_SECONDS = 300.0


def write() -> bool:
    """Write the archive anew; False where this JVM writes none. Killed, it leaves none, or a whole one."""
    archive = class_archive()
    archive.unlink(missing_ok=True)
    being_written = archive.with_suffix(f".{os.getpid()}")
    arguments = f'"-XX:ArchiveClassesAtExit={being_written}" -Xlog:disable -Xlog:all=error'
    os.environ["SPARK_SUBMIT_OPTS"] = arguments  # noqa: TID251 - the launcher of the JVM reads it
    with tempfile.TemporaryDirectory(prefix="ragstream-") as folder:
        _end_jvm(_exercise(Path(folder)))
    if not being_written.exists():
        return False
    being_written.replace(archive)
    return True


def _exercise(folder: Path) -> SparkSession:
    """Let the classes be loaded that jobs need: land and merge recorded rows, and look for a broker."""
    from pyspark.sql import SparkSession

    (folder / "events.jsonl").write_text("".join(f"{_event(number)}\n" for number in range(_ROWS)))
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(_pipeline(folder)))
    run_pipeline(
        Options(str(folder / "pipeline.yaml"), available_now=True, log_level="error"), plans_of(["land", "merge"])
    )
    session = SparkSession.builder.getOrCreate()
    with contextlib.suppress(Exception):  # there is no broker
        _read_kafka(session)
    return session


def _read_kafka(session: SparkSession) -> None:
    reader = session.read.format("kafka").option("kafka.bootstrap.servers", "127.0.0.1:9").option("subscribe", "none")
    for name in ("request.timeout.ms", "default.api.timeout.ms", "session.timeout.ms"):
        reader = reader.option(f"kafka.{name}", _KAFKA_MS)
    reader.load().count()


def _event(number: int) -> str:
    source = {"schema": "public", "table": "t", "sequence": f'["{number}","{number}"]', "ts_us": number}
    after = {"id": number % (_ROWS // 2), "a": "a", "body": "body"}
    value = {"op": "c", "before": None, "after": after, "source": source}
    return json.dumps({"topic": "t", "partition": 0, "offset": number, "key": {"id": after["id"]}, "value": value})


def _pipeline(folder: Path) -> dict[str, Any]:
    return {
        "name": "archive",
        "source": {
            "type": "files", "format": "kafka", "envelope": "debezium", "max_records_per_trigger": _ROWS // 2,
            "path": [str(folder / "events.jsonl")],
        },
        "tables": [{"table": "public.t", "keys": ["id"], "columns": {"id": "int", "a": "text", "body": "text"}}],
        "lake": {"path": str(folder / "lake")},
        "checkpoint": str(folder / "checkpoint"),
    }  # fmt: skip


def _end_jvm(session: SparkSession) -> None:
    """Stop Spark and wait for its JVM, which writes the archive as it ends."""
    gateway: Any = session.sparkContext._gateway  # noqa: SLF001 - PySpark has no name for its JVM
    process = gateway.proc
    session.stop()
    gateway.shutdown()
    process.stdin.close()
    process.wait(_EXIT_SECONDS)


if __name__ == "__main__":
    if not write():
        click.echo("          this JVM writes none: drivers start without")

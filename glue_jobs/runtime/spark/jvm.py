"""Starts the JVM of a local session, with its output in a file, so that a command prints only its own output."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from glue_jobs.config.values import STATE_FOLDER
from schemas.errors import ConfigurationError

FILE = "spark.log"
_LINES = 5
"""Last lines of its output that an error quotes."""
_started: list[Path] = []


def log_file() -> Path | None:
    """The file with the output of this process's JVM; None without a JVM, or when it writes to stderr."""
    return _started[-1] if _started else None


def start(settings: Mapping[str, str], checkpoint: str) -> None:
    """Start the JVM that this process's sessions share, unless it runs; its output is appended to `spark.log`.

    The file is in a checkpoint on this machine, else in `.ragstream`. Raises ConfigurationError when no JVM starts.
    """
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkRuntimeError
    from pyspark.java_gateway import launch_gateway

    if SparkContext._gateway is not None:  # noqa: SLF001 - PySpark has no public way to ask
        return
    path = Path(STATE_FOLDER if "://" in checkpoint else checkpoint) / FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("ab")
    except OSError:
        return  # PySpark starts it, with its output on stderr
    with opened as log:
        offset = log.tell()
        conf = SparkConf().setAll(list(settings.items()))
        try:
            gateway = launch_gateway(conf, {"stdout": log, "stderr": log})  # type: ignore[no-untyped-call]
        except (PySparkRuntimeError, OSError) as error:
            raise ConfigurationError(
                f"Spark's JVM does not start ({type(error).__name__}):\n  {_last_lines(path, offset)}",
                condition="JVM_NOT_STARTED",
                hint=f"Java 17 is needed, and JAVA_HOME or PATH must lead to it; its output is in {path}.",
            ) from None
    SparkContext._ensure_initialized(gateway=gateway)  # noqa: SLF001 - as PySpark does with a gateway of its own
    logging.getLogger("py4j").setLevel(logging.CRITICAL)  # it logs failures with their messages, which may quote a row
    _started.append(path)


def _last_lines(path: Path, offset: int) -> str:
    """The last lines written to the file after an offset."""
    with path.open("rb") as log:
        log.seek(offset)
        lines = log.read().decode(errors="replace").splitlines()
    return "\n  ".join(line.strip() for line in lines[-_LINES:] if line.strip())

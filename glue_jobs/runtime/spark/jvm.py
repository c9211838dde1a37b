"""The JVM of a session that is made here, and where its own lines go: to a file, so that a command prints its own words."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from glue_jobs.config.values import STATE_FOLDER
from schemas.errors import ConfigurationError

FILE = "spark.log"
_LINES = 5
"""What a JVM says before it gives up; where it never began, the shell that looked for it."""
_started: list[Path] = []


def log_file() -> Path | None:
    """Where the JVM of this process writes what it has to say; None where it has none, or says it on stderr."""
    return _started[-1] if _started else None


def start(settings: Mapping[str, str], checkpoint: str) -> None:
    """Start the JVM that this process's sessions share, unless it runs; its lines are appended to `spark.log`.

    The file stands beside a checkpoint on this machine, else in `.ragstream`. Raises ConfigurationError when no JVM starts.
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
        return  # PySpark starts it, and its lines go to stderr: where nothing can be written, they are no worse there
    with opened as log:
        began = log.tell()
        conf = SparkConf().setAll(list(settings.items()))
        try:
            gateway = launch_gateway(conf, {"stdout": log, "stderr": log})  # type: ignore[no-untyped-call]
        except (PySparkRuntimeError, OSError) as error:
            raise ConfigurationError(
                f"Spark's JVM does not start ({type(error).__name__}):\n  {_told(path, began)}",
                condition="JVM_NOT_STARTED",
                hint=f"Java 17 is needed, and JAVA_HOME or PATH must lead to it; {path} has all it said.",
            ) from None
    SparkContext._ensure_initialized(gateway=gateway)  # noqa: SLF001 - as PySpark does with a gateway of its own
    logging.getLogger("py4j").setLevel(logging.CRITICAL)  # it tells a failure with its message, which may quote a row
    _started.append(path)


def _told(path: Path, began: int) -> str:
    """The last lines that were written since the file had a size."""
    with path.open("rb") as log:
        log.seek(began)
        lines = log.read().decode(errors="replace").splitlines()
    return "\n  ".join(line.strip() for line in lines[-_LINES:] if line.strip())

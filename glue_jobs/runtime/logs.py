"""Log lines as JSON objects on stderr, one a line, without secrets."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO


class JsonLines(logging.Formatter):
    """Constant message, variable context; an exception is named without its message, which may quote a row (I14)."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        """Keep what takes secrets out of a line."""
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """Render one line."""
        line = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if isinstance(context := getattr(record, "context", None), dict):
            line |= context
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = type(record.exc_info[1]).__name__
        return self._redact(json.dumps(line, default=str))


def set_up(level: str, redact: Callable[[str], str], stream: IO[str] | None = None) -> None:
    """Send this process's log lines to stderr; libraries are heard from warnings on."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(redact))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for package in ("glue_jobs", "sources", "lake", "sinks", "embeddings", "retrieval", "transforms"):
        logging.getLogger(package).setLevel(level.upper())
    # py4j tells every failed callback with its traceback, message included; the runner tells it without.
    logging.getLogger("py4j").setLevel(logging.CRITICAL)

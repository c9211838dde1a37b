"""Log lines as JSON objects on stderr, one a line, without secrets."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime


class JsonLines(logging.Formatter):
    """A constant message and its context as JSON; an exception appears without its message, which may quote a row (I14)."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        """Take the function that masks secrets in a line."""
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


def set_up(level: str, redact: Callable[[str], str]) -> None:
    """Send this process's log lines to stderr; libraries log warnings and errors only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(redact))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for package in ("glue_jobs", "sources", "lake", "sinks", "embeddings", "retrieval", "service", "transforms"):
        logging.getLogger(package).setLevel(level.upper())
    # py4j logs every failed callback with its message, which may quote a row; the runner logs it without.
    logging.getLogger("py4j").setLevel(logging.CRITICAL)

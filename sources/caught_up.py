"""Caught-up probes: whether a query has processed all that a stream holds, which Spark's status says of no partition."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

_EVERY_S = 0.5
"""Least time between two reports, in seconds."""


class CaughtUpProbe(Protocol):
    """Up to when everything in each partition of a stream has been processed."""

    def caught_up_us(self, progress: Mapping[str, Any] | None) -> Mapping[str, int] | None:
        """By partition (`stream/partition`): when it was last known to hold nothing unprocessed, in µs since the epoch.

        0: it holds more. None: nothing is known of any partition. `progress` is Spark's last progress report.
        """
        ...


class FileProbe:
    """A small file beside the driver, which Spark's Python process of the source writes and the driver reads.

    Its times never decrease.
    """

    def __init__(self) -> None:
        """Name a file that does not exist yet, in a folder that goes with this object."""
        folder = tempfile.mkdtemp(prefix="ragstream-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.path = str(Path(folder) / "idle")

    def caught_up_us(self, progress: Mapping[str, Any] | None = None) -> Mapping[str, int] | None:
        """The last report; None before the first."""
        with contextlib.suppress(FileNotFoundError):
            return dict(json.loads(Path(self.path).read_text(encoding="utf-8")))
        return None


class FileProbeWriter:
    """Writes the file of a `FileProbe`."""

    def __init__(self, path: str) -> None:
        """Take the file's path; empty: nothing is written."""
        self._path = path
        self._wrote = 0.0

    def write(self, caught_up_ms: Mapping[str, int]) -> None:
        """Report, by partition, when all of it had been processed, in milliseconds since the epoch."""
        now = time.monotonic()
        if not self._path or not caught_up_ms or now - self._wrote < _EVERY_S:
            return
        self._wrote = now
        new = Path(f"{self._path}.new")
        with contextlib.suppress(FileNotFoundError):  # the driver is gone
            new.write_text(json.dumps({place: ms * 1000 for place, ms in caught_up_ms.items()}), encoding="utf-8")
            new.replace(self._path)

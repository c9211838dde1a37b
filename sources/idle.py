"""How a source's reader tells its driver that a stream holds nothing more: Spark's own status cannot say that of one."""

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
"""Least time between two notes, in seconds."""


class IdleNote(Protocol):
    """Says up to when everything in each partition of a stream has been processed."""

    def empty_us(self, progress: Mapping[str, Any] | None) -> Mapping[str, int] | None:
        """Of every partition, `stream/partition`, when it was last seen to hold no more than was processed.

        In microseconds since the epoch, 0 of one that holds more, given Spark's last progress report; None when it is not
        known of any.
        """
        ...


class FileNote:
    """A small file beside the driver; the reader, a process of its own there, writes it, and the driver reads it.

    What it says stays true: it is never taken back, only followed by a later time.
    """

    def __init__(self) -> None:
        """Name a file that does not exist yet, in a folder that goes with this object."""
        folder = tempfile.mkdtemp(prefix="ragstream-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.path = str(Path(folder) / "idle")

    def empty_us(self, progress: Mapping[str, Any] | None = None) -> Mapping[str, int] | None:
        """The last note; None before the first."""
        with contextlib.suppress(FileNotFoundError):
            return dict(json.loads(Path(self.path).read_text(encoding="utf-8")))
        return None


class IdleWriter:
    """The reader's end of a note."""

    def __init__(self, path: str) -> None:
        """Take the note's path; empty when nobody wants to know."""
        self._path = path
        self._wrote = 0.0

    def note(self, empty_ms: Mapping[str, int]) -> None:
        """Say of every partition when all that stood in it had been processed; in milliseconds since the epoch."""
        now = time.monotonic()
        if not self._path or not empty_ms or now - self._wrote < _EVERY_S:
            return
        self._wrote = now
        new = Path(f"{self._path}.new")
        with contextlib.suppress(FileNotFoundError):  # the driver is gone
            new.write_text(json.dumps({place: ms * 1000 for place, ms in empty_ms.items()}), encoding="utf-8")
            new.replace(self._path)

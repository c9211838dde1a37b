"""How a source's reader tells its driver that a stream holds nothing more: Spark's own status cannot say that of one."""

from __future__ import annotations

import contextlib
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
    """Says up to when everything in a stream has been processed."""

    def as_of_us(self, progress: Mapping[str, Any] | None) -> int | None:
        """That time, in microseconds since the epoch, given Spark's last progress report; None when it is not known."""
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

    def as_of_us(self, progress: Mapping[str, Any] | None = None) -> int | None:
        """The time of the last note, in microseconds; None before the first."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int(Path(self.path).read_text(encoding="ascii"))
        return None


class IdleWriter:
    """The reader's end of a note."""

    def __init__(self, path: str) -> None:
        """Take the note's path; empty when nobody wants to know."""
        self._path = path
        self._wrote = 0.0

    def note(self, as_of_ms: int) -> None:
        """Say that everything that stood in the stream at a time has been processed; in milliseconds since the epoch."""
        now = time.monotonic()
        if not self._path or as_of_ms <= 0 or now - self._wrote < _EVERY_S:
            return
        self._wrote = now
        new = Path(f"{self._path}.new")
        with contextlib.suppress(FileNotFoundError):  # the driver is gone
            new.write_text(str(as_of_ms * 1000), encoding="ascii")
            new.replace(self._path)

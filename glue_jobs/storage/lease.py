"""One driver a checkpoint: two could give one batch id to different records, and a Delta append keyed by it would be skipped.

In a folder it is a lock of the kernel, which is free as soon as its holder is killed; a second driver waits until the first has
ended, then resumes from its offsets. On S3 it is an object (`s3_lease`), and a second driver is refused.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from glue_jobs.storage.s3 import is_s3
from glue_jobs.storage.s3_lease import S3Lease, S3Object

_LOG = logging.getLogger(__name__)
_POLL_SECONDS = 0.5


class Lease(Protocol):
    """One driver's right to a query's checkpoint."""

    def confirm(self) -> None:
        """Return if this driver still has it; called before each commit. Raises StoppedError or UnavailableError."""

    def raise_if_lost(self) -> None:
        """Raise StoppedError if it is known to be lost; makes no request."""


class _FileLock:
    """A lock of the kernel, which cannot be lost."""

    def confirm(self) -> None:
        """Return."""

    def raise_if_lost(self) -> None:
        """Return."""


@contextmanager
def lease(checkpoint: str, stop: threading.Event) -> Iterator[Lease | None]:
    """Acquire a query's checkpoint; None when a stop was requested before it was free.

    Raises:
        ConfigurationError: on S3, another driver has it.
    """
    if is_s3(checkpoint):
        root, _, query = checkpoint.rpartition("/")
        s3_lease = S3Lease(S3Object(f"{root}/leases/{query}.json"), query)
        if not s3_lease.acquire(stop):
            yield None
            return
        with s3_lease.renewed():
            yield s3_lease
        return
    folder = Path(checkpoint)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("a+") as file:
        yield _FileLock() if _lock(file.fileno(), folder, stop) else None


def _lock(descriptor: int, folder: Path, stop: threading.Event) -> bool:
    logged = False
    while not stop.is_set():
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not logged:
                logged = True
                _LOG.warning(
                    "another driver runs this query; waiting for it to end",
                    extra={"context": {"checkpoint": str(folder), "pid": _holder(descriptor)}},
                )
            stop.wait(_POLL_SECONDS)
        else:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            return True
    return False


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 20, 0).decode() or "unknown"

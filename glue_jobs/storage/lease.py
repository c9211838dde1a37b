"""One driver a checkpoint: two could give one batch number to different records, and a Delta append keyed by it would be skipped.

In a folder the lock is the kernel's, so it is free the moment its holder is killed, and the second driver waits until the first
has ended, then goes on from its offsets. On S3 it is an object (`s3_lease`), and the second driver is refused.
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
    """A query's checkpoint as its driver holds it."""

    def confirm(self) -> None:
        """Return if it is still this driver's; asked before each commit. Raises StoppedError or UnavailableError."""

    def raise_if_lost(self) -> None:
        """Raise StoppedError where it is known to be another's; asks nobody."""


class _Locked:
    """The kernel takes no lock away."""

    def confirm(self) -> None:
        """It is."""

    def raise_if_lost(self) -> None:
        """It is not."""


@contextmanager
def lease(checkpoint: str, stop: threading.Event) -> Iterator[Lease | None]:
    """Hold a query's checkpoint; None when the driver was asked to stop before it was free.

    Raises:
        ConfigurationError: on S3, another driver holds it.
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
        yield _Locked() if _taken(file.fileno(), folder, stop) else None


def _taken(descriptor: int, folder: Path, stop: threading.Event) -> bool:
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

"""One driver a checkpoint: the second one waits until the first has ended, then goes on from its offsets.

Two drivers on one checkpoint could give one batch number to different records, and a Delta append keyed by it would be
skipped by one of them. The lock is the kernel's, so it is free the moment its holder is killed. On S3 there is none: there
Glue's MaxConcurrentRuns of 1 keeps a second run out.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOG = logging.getLogger(__name__)
_POLL_SECONDS = 0.5


@contextmanager
def lease(checkpoint: str, stop: threading.Event) -> Iterator[bool]:
    """Hold a query's checkpoint; yields False when the driver was asked to stop before it was free."""
    if "://" in checkpoint:
        yield True
        return
    folder = Path(checkpoint)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("a+") as file:
        yield _taken(file.fileno(), folder, stop)


def _taken(descriptor: int, folder: Path, stop: threading.Event) -> bool:
    told = False
    while not stop.is_set():
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                told = True
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

"""The bulk load of a command: begun when it is known how much is to come, renewed while the command is at work, ended with it."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, Self

from schemas.errors import UnavailableError
from sinks.bulk_loads import RENEW_US
from sinks.versions import BulkLoad

if TYPE_CHECKING:
    from sinks.bulk_loads import Build
    from sinks.protocol import Sink

_AGAIN_SECONDS = 1.0
"""Between two looks whether another process has built the index."""


class CommandLoad:
    """A load by a command. After a kill the same command, run again, ends it, or a minute later the pipeline's job."""

    def __init__(self, sink: Sink, by: str) -> None:
        """Begin nothing yet."""
        self._sink, self._by = sink, by
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, new: int) -> None:
        """Load so many new vectors without an index, where that is worth its while."""
        now_us = time.time_ns() // 1000
        if self._sink.begin_bulk_load(BulkLoad(self._by, now_us, renewed_us=now_us), new) and self._thread is None:
            self._thread = threading.Thread(target=self._renew, daemon=True, name="bulk load")
            self._thread.start()

    def end(self, on_progress: Callable[[Build], object]) -> None:
        """Build the index, or wait for another process that builds it."""
        while not self._sink.end_bulk_load(on_progress):
            time.sleep(_AGAIN_SECONDS)

    def __enter__(self) -> Self:
        """Nothing has begun."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Renew no more."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _renew(self) -> None:
        with closing(copy.deepcopy(self._sink)) as own:
            while not self._ended.wait(RENEW_US / 1_000_000):
                try:
                    own.renew_bulk_load()
                except UnavailableError:
                    continue

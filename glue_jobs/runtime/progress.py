"""Progress of a Spark action while it runs: tasks add to an accumulator, a thread reports it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pyspark.accumulators import Accumulator
    from pyspark.sql import SparkSession

type OnProgress = Callable[[str, str, int, int], object]
"""Called with the name of the work, its step, the amount done and the total."""

_EVERY_SECONDS = 0.5


class Progress:
    """Reports the progress of named work, step by step; a task's share counts when the task is done."""

    def __init__(self, spark: SparkSession, name: str, on_progress: OnProgress) -> None:
        """Nothing is reported before the first step."""
        self._context = spark.sparkContext
        self._name = name
        self._on_progress = on_progress
        self._step: tuple[str, Accumulator[int], int] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._report, name=f"progress {name}", daemon=True)

    def step(self, name: str, total: int) -> Callable[[int], None]:
        """Begin a step; returns its counter, which tasks call with the amount they have done."""
        self._finish()
        counter = self._context.accumulator(0)
        self._step = (name, counter, total)
        return counter.add

    def __enter__(self) -> Self:
        """Start the reporting thread."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Report the last step as done, whether it was or not."""
        self._ended.set()
        self._thread.join()
        self._finish()

    def _report(self) -> None:
        while not self._ended.wait(_EVERY_SECONDS):
            if self._step is not None:
                name, counter, total = self._step
                self._on_progress(self._name, name, min(counter.value, total), total)

    def _finish(self) -> None:
        if self._step is not None:
            name, _, total = self._step
            self._on_progress(self._name, name, total, total)

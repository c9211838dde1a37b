"""How far a Spark action is, told while it runs: tasks add what they have done, a thread looks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pyspark.accumulators import Accumulator
    from pyspark.sql import SparkSession

type Tell = Callable[[str, str, int, int], object]
"""Told a name, the step it is at, what of it is done, and how much there is."""

_EVERY_SECONDS = 0.5


class Watch:
    """Watches one step after the other of something that has a name; a task's share counts when the task is done."""

    def __init__(self, spark: SparkSession, name: str, tell: Tell) -> None:
        """Nothing is told before the first step."""
        self._context = spark.sparkContext
        self._name = name
        self._tell = tell
        self._step: tuple[str, Accumulator[int], int] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name=f"watch {name}", daemon=True)

    def step(self, name: str, total: int) -> Callable[[int], None]:
        """Begin a step; tasks call what is given back with each part they have done."""
        self._finish()
        counter = self._context.accumulator(0)
        self._step = (name, counter, total)
        return counter.add

    def __enter__(self) -> Self:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Tell the last step as done, whether it was or not."""
        self._ended.set()
        self._thread.join()
        self._finish()

    def _look(self) -> None:
        while not self._ended.wait(_EVERY_SECONDS):
            if self._step is not None:
                name, counter, total = self._step
                self._tell(self._name, name, min(counter.value, total), total)

    def _finish(self) -> None:
        if self._step is not None:
            name, _, total = self._step
            self._tell(self._name, name, total, total)

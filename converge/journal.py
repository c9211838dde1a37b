"""What a run has done, and where it dies: in this process by an exception, or for good by SIGKILL and a process that goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

from schemas.errors import PipelineError

_LOOK_SECONDS = 0.5
"""How often a process that does the work is asked how far it is."""


class Died(BaseException):
    """The process would be dead by now."""


class Journal:
    """The journal of a run that lives in one process: nothing is done when it begins, and a death is an exception."""

    deaths = 0

    def is_done(self, unit: str) -> bool:
        """Whether an earlier process has done a unit of work."""
        return False

    def done(self, unit: str) -> None:
        """Note that a unit is done."""

    def die(self, unit: str) -> None:
        """Die in a unit."""
        self.deaths += 1
        raise Died


class JournalOnDisk(Journal):
    """The journal of a run that is killed: kept in a folder; each unit is died in once, by SIGKILL."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which the next process finds."""
        self._folder, self._histories = folder, 0

    def is_done(self, unit: str) -> bool:
        """As noted."""
        return (self._folder / f"done-{unit}").exists()

    def done(self, unit: str) -> None:
        """Note it."""
        (self._folder / f"done-{unit}").touch()

    def die(self, unit: str) -> None:
        """Send this process SIGKILL, unless one has died in this unit."""
        mark = self._folder / f"died-{unit}"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def advance(self, histories: int) -> None:
        """Note how many histories more this process is through with, those of an earlier one among them."""
        self._histories += histories
        (self._folder / "histories").write_text(str(self._histories))

    def histories(self) -> int:
        """How many the newest process was through with."""
        noted = self._folder / "histories"
        return int(noted.read_text() or 0) if noted.exists() else 0


class Survived:
    """Whether work went on to its end, or died."""

    def __init__(self) -> None:
        """It has not died yet."""
        self.died = False


@contextmanager
def survived() -> Iterator[Survived]:
    """A block of work that may die in this process; what comes after it is the next process."""
    outcome = Survived()
    try:
        yield outcome
    except Died:
        outcome.died = True


def until_done(
    work: Callable[[JournalOnDisk], None], folder: Path, on_done: Callable[[int], None] = lambda _: None
) -> int:
    """Do work in processes of their own, one after the other, until one of them ends; returns how many were killed.

    `on_done` is told of histories as a process gets through with them.

    Raises:
        PipelineError: a process ended by itself with another status than 0.
    """
    kills = done = 0
    context, journal = get_context("spawn"), JournalOnDisk(folder)
    while True:
        process = context.Process(target=work, args=(journal,))
        process.start()
        while process.is_alive():
            process.join(_LOOK_SECONDS)
            if (now := journal.histories()) > done:
                on_done(now - done)
                done = now
        if process.exitcode == 0:
            return kills
        if process.exitcode != -signal.SIGKILL:
            raise PipelineError(f"a process of the run ended with status {process.exitcode}; its own lines stand above")
        kills += 1

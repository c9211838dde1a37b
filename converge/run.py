"""A run: histories from seeds into every lane, and what fails made as small as it gets."""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from converge.compare import Failure
from converge.histories import ROUNDS, History, Kill, Recorded, history
from converge.journal import Journal, JournalOnDisk, until_done
from converge.shrink import shrunk
from converge.watched import STEPS

_ALIKE = 400
"""Histories of a block where a death costs nothing: they die at the same steps, and are delivered together."""
_BLOCKS = 24
"""Blocks of a run whose processes are killed in earnest, which costs a start each."""
_MOST_SHRUNK = 3
"""Failing histories of a lane that are made smaller; the others are counted."""
_SHRINK_SECONDS = 60.0
"""How long one is made smaller: a pass through a lake takes ten seconds."""


class Lane(Protocol):
    """A place that histories are delivered to: the fold alone, a lake with its warehouse, a vector store."""

    def deliver(self, histories: Sequence[History], journal: Journal, on_done: Callable[[int], None]) -> None:
        """Deliver histories, each in its own key space; `on_done` is told how many are done."""

    def failures(self, histories: Sequence[History]) -> list[Failure]:
        """Compare what stands there of each history with the model."""


class OpenLane(Protocol):
    """Opens a lane, in this process or another: plain data, so that it pickles."""

    @property
    def name(self) -> str:
        """The lane's name."""

    @property
    def keeps(self) -> bool:
        """Whether something stands there after a process has ended."""

    def __call__(self) -> Lane:
        """Open it."""


@dataclass(frozen=True)
class Settings:
    """What a run is made of."""

    histories: int
    seed: int
    kills: bool = False
    """Processes of their own, killed by SIGKILL; else a death is an exception, and the next process a new connection."""


@dataclass(frozen=True)
class Outcome:
    """What became of the histories in one lane."""

    lane: str
    histories: int
    deaths: int
    """Processes that were killed, or died by an exception."""
    failing: int
    smallest: tuple[Failure, ...]
    seconds: float


def planned(recordings: Mapping[str, Recorded], settings: Settings) -> list[History]:
    """The histories of a run, each in its own key space, from consecutive seeds; every recording is in two blocks at least."""
    names = sorted(recordings)
    alike = math.ceil(settings.histories / _BLOCKS) if settings.kills else _ALIKE
    blocks = math.ceil(settings.histories / alike)
    width = min(len(names), math.ceil(2 * len(names) / blocks))
    histories = []
    for number in range(settings.histories):
        block = number // alike
        recorded = recordings[names[(block * width + number % width) % len(names)]].recording
        kills = _kills(settings.seed, block, 2 if settings.kills else 1)
        histories.append(history(recorded, 1 + number, settings.seed + number, kills))
    return histories


def _kills(seed: int, block: int, least: int) -> tuple[Kill, ...]:
    """Where the processes of a block die: in `least` to 2 rounds, at one step of each; all steps are reached as blocks go on."""
    r = random.Random(f"{seed}/kills/{block}")  # noqa: S311 - no secret depends on it
    rounds = sorted(r.sample(range(ROUNDS), r.randint(least, 2)))
    return tuple(Kill(number, r.randrange(len(STEPS))) for number in rounds)


def run(
    open_lane: OpenLane,
    recordings: Mapping[str, Recorded],
    histories: Sequence[History],
    on_done: Callable[[int], None] = lambda _: None,
    *,
    kills: bool = False,
) -> Outcome:
    """Deliver histories to a lane and compare; with `kills`, in processes that are killed and go on.

    Raises:
        PipelineError: a part does not answer, refuses, or is wrongly configured.
    """
    began, journal = time.monotonic(), Journal()
    if kills and open_lane.keeps:
        with TemporaryDirectory(prefix="ragstream-converge-") as folder:
            journal.deaths = until_done(Delivering(open_lane, tuple(histories)), Path(folder), on_done)
        lane = open_lane()
    else:
        lane = open_lane()
        lane.deliver(histories, journal, on_done)
    failures = lane.failures(histories)
    spaces = itertools.count(1 + max((h.space for h in histories), default=0))
    failing = {failure.history.space: failure for failure in reversed(failures)}
    first = list(failing.values())[-_MOST_SHRUNK:]
    smallest = tuple(shrunk_in(lane, failure, recordings, spaces) for failure in reversed(first))
    seconds = time.monotonic() - began
    return Outcome(open_lane.name, len(histories), journal.deaths, len(failing), smallest, seconds)


@dataclass(frozen=True)
class Delivering:
    """The work of a process that may be killed; plain data, so that it pickles."""

    open_lane: OpenLane
    histories: tuple[History, ...]

    def __call__(self, journal: JournalOnDisk) -> None:
        """Deliver what is not done yet."""
        self.open_lane().deliver(self.histories, journal, journal.advance)


def shrunk_in(lane: Lane, failure: Failure, recordings: Mapping[str, Recorded], spaces: Iterator[int]) -> Failure:
    """The smallest history that fails in the lane as this one does; found in key spaces that nothing stands in."""
    recorded = recordings[failure.history.recording]
    shared = frozenset(recorded.recording.truncations.get(recorded.table(failure.history), ()))

    until = time.monotonic() + _SHRINK_SECONDS

    def again(parts: Sequence[History]) -> list[Failure]:
        if time.monotonic() > until:
            return []
        lane.deliver(parts, Journal(), lambda _: None)
        return [other for other in lane.failures(parts) if other.lane == failure.lane]

    return shrunk(failure, again, spaces, shared)

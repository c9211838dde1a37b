"""Several stores written at once: each by a thread of its own, and one that stays away is set aside for the others' sake.

Setting aside is only told here: whoever commits what was read must first remember it, so that the store is caught up.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from schemas.errors import ModelUnavailableError, UnavailableError
from sinks.every_generation import own_model_alone
from sinks.watched import Watch, answers, watched

if TYPE_CHECKING:
    from sinks.every_generation import Embedders
    from sinks.protocol import Sink

type Phase = Literal["aside", "returning"]
"""`aside`: not written. `returning`: written again, while what it missed is brought in from the lake."""
type Phases = Callable[[], Mapping[str, Phase]]
"""Tells the phase of each store that is not in step."""

_TOLD_SECONDS = 30.0
"""How long a store whose deadline is over is not tried again though nobody remembers it yet: a batch tells when it ends."""
_PAUSE_SECONDS = 0.2
"""Between two attempts at a store that does not answer."""
_LOOK_SECONDS = 0.1
"""How often it is looked whether a store is silent for too long."""


@dataclass(frozen=True, slots=True)
class Missed:
    """A store that did not get what was written: since when (seconds since the epoch), and whether it was tried."""

    since: float
    tried: bool


@dataclass(frozen=True, slots=True)
class SettingAside:
    """What lets one of several stores be set aside; without it all are waited for."""

    deadlines: Mapping[str, float] = field(default_factory=dict)
    """Seconds a store may stay away, by its name."""
    phases: Phases = dict


@dataclass
class Several:
    """The stores of an indexer.

    One store alone is written in the caller's thread and raises what it raises. Of several, one that fails is tried again
    until its deadline, and one that is silent for that long, also to another connection, is left to itself; it comes back
    as missed, unless all are away: that raises UnavailableError.
    """

    sinks: Sequence[Sink]
    aside: SettingAside = field(default_factory=SettingAside)
    embedders: Embedders = own_model_alone
    """Opens the models of the stores' other generations."""

    def __post_init__(self) -> None:
        """Keep for each store the others by connections of its own, not opened yet."""
        self._given_up: dict[str, float] = {}
        self._lenders = {sink.name: self._others(sink) for sink in self.sinks}

    def write(self, write: Callable[[Sink, Sequence[Sink]], None]) -> dict[str, Missed]:
        """Call `write` with each store and those that may lend it vectors; what was missed comes back by name."""
        if len(self.sinks) == 1:
            write(self.sinks[0], ())
            return {}
        phases = self.aside.phases()
        self._given_up = {
            name: since
            for name, since in self._given_up.items()
            if name not in phases and time.time() - since < self.aside.deadlines[name] + _TOLD_SECONDS
        }
        left = {name: Missed(time.time(), tried=False) for name, phase in phases.items() if phase == "aside"}
        left |= {name: Missed(since, tried=True) for name, since in self._given_up.items()}
        live = [sink for sink in self.sinks if sink.name not in left] or list(self.sinks)
        missed = {sink.name: left[sink.name] for sink in self.sinks if sink not in live}
        attempts = [
            Attempt(sink, self._lent_to(sink, live, phases), write, self.aside.deadlines.get(sink.name))
            for sink in live
        ]
        errors = {each.sink.name: error for each in attempts if (error := each.outcome()) is not None}
        for attempt in attempts:
            self._tidy(attempt)
        for name, error in errors.items():
            if len(errors) == len(live) or not isinstance(error, AwayError):
                raise error.cause if isinstance(error, AwayError) else error
            missed[name] = Missed(error.since, tried=True)
            self._given_up[name] = error.since
        return missed

    def _tidy(self, attempt: Attempt) -> None:
        """Close what was lent; a store that was left to itself gets connections of its own from now on."""
        name = attempt.sink.name
        if attempt.is_left:
            self.sinks = [copy.deepcopy(sink) if sink.name == name else sink for sink in self.sinks]
            self._lenders[name] = self._others(attempt.sink)
        else:
            for lender in self._lenders[name].values():
                lender.close()

    def _others(self, sink: Sink) -> dict[str, Sink]:
        return {other.name: copy.deepcopy(other) for other in self.sinks if other.name != sink.name}

    def _lent_to(self, sink: Sink, live: Sequence[Sink], phases: Mapping[str, Phase]) -> list[Sink]:
        """Other stores by connections of their own, for one that missed vectors they hold."""
        if phases.get(sink.name) != "returning":
            return []
        in_step = {other.name for other in live} - phases.keys()
        return [lender for name, lender in self._lenders[sink.name].items() if name in in_step]


class Attempt:
    """Work on one store in a thread of its own, which keeps no process from ending."""

    def __init__(
        self,
        sink: Sink,
        lenders: Sequence[Sink],
        write: Callable[[Sink, Sequence[Sink]], None],
        deadline: float | None,
        *,
        tries_again: bool = True,
    ) -> None:
        """Begin; with a deadline, in seconds, a store that is silent is not waited for, nor one that fails for so long."""
        self.sink = sink
        self._lenders, self._write, self._deadline, self._tries_again = lenders, write, deadline, tries_again
        self._watch, self._done = Watch(), threading.Event()
        self._error: BaseException | None = None
        threading.Thread(target=self._run, daemon=True, name=f"store-{sink.name}").start()

    @property
    def is_left(self) -> bool:
        """Whether the store was left to itself, and its connections are in use for as long as it is silent."""
        return self._watch.given_up

    def outcome(self) -> BaseException | None:
        """Wait for the end of it, or for the end of the store's deadline where it does not answer another connection either."""
        granted = 0.0
        while not self._done.wait(_LOOK_SECONDS):
            asked, since = self._watch.asked_at, self._watch.away_since
            if asked is None or since is None or self._deadline is None:
                continue
            if time.time() - max(since, granted) < self._deadline:
                continue
            if answers(self.sink):
                granted = time.time()
            elif self._watch.give_up(asked):
                return AwayError(UnavailableError(f"sink {self.sink.name} does not answer"), since)
        return self._error

    def _run(self) -> None:
        try:
            self._until_deadline()
        except BaseException as error:  # noqa: BLE001 - it is raised where the outcome is asked for
            self._error = error
        self._done.set()
        if self.is_left:
            for sink in (self.sink, *self._lenders):
                sink.close()

    def _until_deadline(self) -> None:
        sink, *lenders = [watched(each, self._watch) for each in (self.sink, *self._lenders)]
        while True:
            try:
                self._write(sink, lenders)
            except ModelUnavailableError:
                raise
            except UnavailableError as error:
                if self._deadline is None or self.is_left or not self._tries_again:
                    raise
                began = self._watch.failing_since = self._watch.failing_since or time.time()
                if time.time() - began >= self._deadline:
                    raise AwayError(error, began) from error
                time.sleep(_PAUSE_SECONDS)
            else:
                return


class AwayError(Exception):
    """A store's deadline is over."""

    def __init__(self, cause: UnavailableError, since: float) -> None:
        super().__init__(cause.message)
        self.cause = cause
        self.since = since

"""Several stores written at once: each by a thread of its own, and one that stays away is set aside for the others' sake.

Setting aside is only told here: whoever commits what was read must first remember it, so that the store is caught up.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from schemas.errors import ModelUnavailableError, UnavailableError

if TYPE_CHECKING:
    from sinks.protocol import Sink

type Phase = Literal["aside", "returning"]
"""`aside`: not written. `returning`: written again, while what it missed is brought in from the lake."""
type Phases = Callable[[], Mapping[str, Phase]]
"""Tells the phase of each store that is not in step."""

_TOLD_SECONDS = 30.0
"""How long a store whose deadline is over is not tried again though nobody remembers it yet: a batch tells when it ends."""
_PAUSE_SECONDS = 0.2
"""Between two attempts at a store that does not answer."""


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

    One store alone is written in the caller's thread and raises what it raises. Of several, one that does not answer is
    tried again until its deadline; then it comes back as missed, unless all are away: that raises UnavailableError.
    """

    sinks: Sequence[Sink]
    aside: SettingAside = field(default_factory=SettingAside)

    def __post_init__(self) -> None:
        """Keep a thread for each store, and for each the others by connections of its own, not opened yet."""
        self._pool = ThreadPoolExecutor(max_workers=max(1, len(self.sinks)), thread_name_prefix="store")
        self._given_up: dict[str, float] = {}
        self._lenders = {
            sink.name: {other.name: copy.deepcopy(other) for other in self.sinks if other is not sink}
            for sink in self.sinks
        }

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
        waiting = {
            sink.name: self._pool.submit(self._until_deadline, sink, write, self._lent_to(sink, live, phases))
            for sink in live
        }
        failed = {name: future.exception() for name, future in waiting.items()}
        for lender in (lender for each in self._lenders.values() for lender in each.values()):
            lender.close()
        errors = {name: error for name, error in failed.items() if error is not None}
        for name, error in errors.items():
            if len(errors) == len(live) or not isinstance(error, _AwayError):
                raise error.cause if isinstance(error, _AwayError) else error
            missed[name] = Missed(error.since, tried=True)
            self._given_up[name] = error.since
        return missed

    def _until_deadline(
        self, sink: Sink, write: Callable[[Sink, Sequence[Sink]], None], lenders: Sequence[Sink]
    ) -> None:
        began: float | None = None
        while True:
            try:
                write(sink, lenders)
            except ModelUnavailableError:
                raise
            except UnavailableError as error:
                if sink.name not in self.aside.deadlines:
                    raise
                began = time.time() if began is None else began
                if time.time() - began >= self.aside.deadlines[sink.name]:
                    raise _AwayError(error, began) from error
                time.sleep(_PAUSE_SECONDS)
            else:
                return

    def _lent_to(self, sink: Sink, live: Sequence[Sink], phases: Mapping[str, Phase]) -> list[Sink]:
        """Other stores by connections of their own, for one that missed vectors they hold."""
        if phases.get(sink.name) != "returning":
            return []
        in_step = {other.name for other in live} - phases.keys()
        return [lender for name, lender in self._lenders[sink.name].items() if name in in_step]


class _AwayError(Exception):
    """A store's deadline is over."""

    def __init__(self, cause: UnavailableError, since: float) -> None:
        super().__init__(cause.message)
        self.cause = cause
        self.since = since

"""Several stores written at once: each by a thread of its own, and one that stays away is set aside for the others' sake.

Setting aside is only told here: whoever commits what was read must first remember it, so that the store is caught up.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from schemas.errors import ModelUnavailableError, UnavailableError
from sinks.watched import Watch, answers, watched

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
_MOST_WAITING = 512
_WAITING_BYTES = 8 << 20
"""Most pieces, and bytes of records, that wait for a store before the others wait with it."""
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


type Write[P] = Callable[[Sink, Sequence[Sink], Sequence[P]], None]
"""Writes pieces of work into a store; the others may lend it vectors."""
type Done[P] = Callable[[str, Sequence[P], Missed | None], None]
"""Told of each piece and store, by name, when the store has it or has missed it; by one thread at a time for each store."""


@dataclass
class Several:
    """The stores of an indexer.

    One store alone is written in the caller's thread and raises what it raises. Of several, each goes at its own pace; one
    that fails is tried again until its deadline, and one that is silent for that long, also to another connection, is left
    to itself; what comes for it meanwhile is missed, unless all are away: that raises UnavailableError.
    """

    sinks: Sequence[Sink]
    aside: SettingAside = field(default_factory=SettingAside)

    def __post_init__(self) -> None:
        """Keep for each store the others by connections of its own, not opened yet."""
        self._given_up: dict[str, float] = {}
        self._lenders = {sink.name: self._others(sink) for sink in self.sinks}
        self._lock = threading.Lock()

    def write[P](self, pieces: Iterable[tuple[P, int]], write: Write[P], done: Done[P]) -> None:
        """Write pieces of work as they come, each with its size in bytes, and return when every store has or has missed all.

        A store is given at once what has come while it was written. The first error of a store ends it for all.
        """
        if len(self.sinks) == 1:
            for piece, _ in pieces:
                write(self.sinks[0], (), [piece])
                done(self.sinks[0].name, [piece], None)
            return
        lanes = _Lanes(
            [sink.name for sink in self.sinks], lambda name, waiting: self._bring(name, waiting, write), done
        )
        try:
            for piece, size in pieces:
                lanes.put(piece, size)
        except BaseException:
            lanes.stop()
            raise
        lanes.end()

    def _bring[P](self, name: str, pieces: Sequence[P], write: Write[P]) -> Missed | None:
        """Bring pieces into one of several stores, unless it is not to be written now."""
        phases = self.aside.phases()
        left = self._left(phases)
        if name in left:
            return left[name]
        with self._lock:
            sink = next(sink for sink in self.sinks if sink.name == name)
            lenders = self._lent_to(name, left, phases)
        attempt = Attempt(sink, lenders, lambda one, others: write(one, others, pieces), self.aside.deadlines.get(name))
        error = attempt.outcome()
        self._tidy(attempt)
        if error is None:
            return None
        if not isinstance(error, AwayError):
            raise error
        with self._lock:
            self._given_up[name] = error.since
            if all(sink.name in self._given_up for sink in self.sinks if sink.name not in left):
                raise error.cause
        return Missed(error.since, tried=True)

    def _left(self, phases: Mapping[str, Phase]) -> dict[str, Missed]:
        """Those stores that are not written now, and why; none when it would be all."""
        now = time.time()
        with self._lock:
            self._given_up = {
                name: since
                for name, since in self._given_up.items()
                if name not in phases and now - since < self.aside.deadlines[name] + _TOLD_SECONDS
            }
            left = {name: Missed(now, tried=False) for name, phase in phases.items() if phase == "aside"}
            left |= {name: Missed(since, tried=True) for name, since in self._given_up.items()}
        return {} if all(sink.name in left for sink in self.sinks) else left

    def _tidy(self, attempt: Attempt) -> None:
        """Close what was lent; a store that was left to itself gets connections of its own from now on."""
        name = attempt.sink.name
        with self._lock:
            if attempt.is_left:
                self.sinks = [copy.deepcopy(sink) if sink.name == name else sink for sink in self.sinks]
                self._lenders[name] = self._others(attempt.sink)
            else:
                for lender in self._lenders[name].values():
                    lender.close()

    def _others(self, sink: Sink) -> dict[str, Sink]:
        return {other.name: copy.deepcopy(other) for other in self.sinks if other.name != sink.name}

    def _lent_to(self, name: str, left: Mapping[str, Missed], phases: Mapping[str, Phase]) -> list[Sink]:
        """Other stores by connections of their own, for one that missed vectors they hold."""
        if phases.get(name) != "returning":
            return []
        return [lender for other, lender in self._lenders[name].items() if other not in left and other not in phases]


class _Lanes[P]:
    """A thread for each store, which takes what waits for it."""

    def __init__(self, names: Sequence[str], bring: Callable[[str, Sequence[P]], Missed | None], done: Done[P]) -> None:
        self._bring, self._done = bring, done
        self._changed = threading.Condition()
        self._waiting: dict[str, list[tuple[P, int]]] = {name: [] for name in names}
        self._ended = False
        self._error: BaseException | None = None
        self._threads = [threading.Thread(target=self._run, args=(name,), daemon=True) for name in names]
        for thread in self._threads:
            thread.start()

    def put(self, piece: P, size: int) -> None:
        """Give every store a piece, once there is room; raises the error of any."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or all(map(_has_room, self._waiting.values())))
            self._raise()
            for waiting in self._waiting.values():
                waiting.append((piece, size))
            self._changed.notify_all()

    def end(self) -> None:
        """Wait until every store has taken all; raises the error of any."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._raise()

    def stop(self) -> None:
        """Let no store take anything more, and wait for what they are at."""
        with self._changed:
            for waiting in self._waiting.values():
                waiting.clear()
        with contextlib.suppress(BaseException):
            self.end()

    def _run(self, name: str) -> None:
        try:
            while pieces := self._take(name):
                self._done(name, pieces, self._bring(name, pieces))
        except BaseException as error:  # noqa: BLE001 - raised where the pieces come from
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _take(self, name: str) -> list[P]:
        """All that waits for a store; nothing at the end, or when any has failed."""
        waiting = self._waiting[name]
        with self._changed:
            self._changed.wait_for(lambda: waiting or self._ended or self._error)
            taken = [] if self._error else [piece for piece, _ in waiting]
            waiting.clear()
            self._changed.notify_all()
        return taken

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


def _has_room(waiting: Sequence[tuple[object, int]]) -> bool:
    return len(waiting) < _MOST_WAITING and sum(size for _, size in waiting) < _WAITING_BYTES


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

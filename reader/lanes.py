"""One store's way out of a reader: a thread that writes what comes for it, at the store's own pace.

A lane is attached: it gets all that the shared feed fetches. Or it is behind: it reads with a feed of its own, and is
attached again once it has nearly caught up; it then runs to where the shared feed was at that moment.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from indexing.work_unit import WorkUnit
from reader.following import AlignedFeed, Followed, Work, has_reached, is_closed
from schemas.errors import ModelUnavailableError, SourceGoneError, UnavailableError
from sources.positions import at

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from indexing.result import Written
    from indexing.store_writer import StoreWriter
    from reader.results import Results
    from schemas.records import Record
    from sources.feeds import Feed, Partition, Position

MOST_WORK, MOST_BYTES = 512, 8 << 20
"""Pieces of work, and bytes of values, that may wait for a store."""
MOST_RECORDS = 512
"""Records that one write takes, or else one piece of work: what it takes bounds how long the next waits."""
FETCH_SECONDS = 0.1
"""How long a fetch waits for a first record; so long it may take until partitions are followed or left."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5.0
"""Between two attempts at a part that does not answer."""
NEARLY_FULL = 0.25
"""A lane has nearly caught up when, while it came to where the shared feed had been, no more of a queue was fetched."""
SLOW_SECONDS = 5.0
"""A step of a write that takes longer is reported: a client may wait for an answer by itself, without an error."""
LOOK_SECONDS = 0.5
"""How often a thread that waits looks around without being woken."""


@dataclass
class Reading:
    """What the shared feed and the lanes of one epoch have in common; `lock` guards all but the functions."""

    open_feed: Callable[[], Feed]
    decode: Callable[[Iterable[Record]], WorkUnit]
    failed: Callable[[BaseException], None]
    """Keeps what a thread died of, and ends the epoch."""
    results: Results
    followed: dict[Partition, Followed] = field(default_factory=dict)
    """What the shared feed follows."""
    queues_filled: float = 0.0
    """How many queues of a lane all that the shared feed fetched would have filled."""
    ended: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Make what the shared feed waits on."""
        self.room = threading.Condition(self.lock)


class StoreLane:
    """A store's positions and the thread that advances them. All but the thread's own methods are called with the lock."""

    def __init__(
        self,
        store: str,
        reading: Reading,
        positions: Mapping[Partition, Position],
        furthest: Mapping[Partition, Position],
        *,
        attached: bool,
    ) -> None:
        """Begin at positions, as `follow` does; a lane that is not attached is behind."""
        self.store = store
        self.positions: dict[Partition, Position] = {}
        self.as_of_us: dict[Partition, int] = {}
        """By partition: up to when all commits are written, as far as the lane itself knows."""
        self.attached, self.behind = attached, not attached
        self.borrows = False
        """Whether it asks the other stores for vectors before the model, though it is attached."""
        self._failed: tuple[str, str] | None = None
        """What the last attempt at a write said that does not answer, and a sentence about it."""
        self._writing_since: float | None = None
        self._reading = reading
        self._written_elsewhere: dict[Partition, Position] = {}
        """Up to where another store was further when this one began."""
        self._own: dict[Partition, Followed] = {}
        """What its own feed follows, or would."""
        self._goal: dict[Partition, Position] | None = None
        """Where the shared feed was when `queues_filled` was `_aimed_at`, while its own feed runs there."""
        self._aimed_at = 0.0
        self._queue: deque[Work] = deque()
        self._bytes = 0
        self._writing: Sequence[Work] = ()
        self._ended = False
        self._woken = threading.Condition(reading.lock)
        self.follow(positions, furthest)

    # Called by the pipeline, with the lock

    @property
    def is_full(self) -> bool:
        """Whether as much waits for the store as may."""
        return len(self._queue) >= MOST_WORK or self._bytes >= MOST_BYTES

    def away(self, step: str, since: float) -> tuple[str, str] | None:
        """What keeps the store's write waiting, and a sentence about it; `step` is what its writer is at, and since when."""
        if self._failed is not None or self._writing_since is None:
            return self._failed
        seconds = time.monotonic() - max(self._writing_since, since)
        if seconds < SLOW_SECONDS:
            return None
        if step == "embed":
            return "embedding", f"the embedding model has not answered for {seconds:.0f} s"
        return f"sink {self.store}", f"sink {self.store} has not taken a write for {seconds:.0f} s"

    def put(self, work: Work) -> None:
        """Add work of the shared feed."""
        self._queue.append(work)
        self._bytes += work.unit.size
        work.waiting += 1
        self._woken.notify()

    def fall_behind(self) -> None:
        """Drop what waits: it is read again by a feed of the store's own."""
        for work in self._queue:
            self._release(work)
        self._queue.clear()
        self._bytes = 0
        self.attached, self.behind, self._goal = False, True, None
        self._woken.notify()

    def follow(self, positions: Mapping[Partition, Position], furthest: Mapping[Partition, Position]) -> None:
        """Have new partitions, from these positions on; `furthest` says how far some store has come with each."""
        for name, place in positions.items():
            self.positions[name], self._own[name] = place, Followed(place)
            if not has_reached(place, furthest[name]):
                self._written_elsewhere[name] = furthest[name]

    def leave(self, names: Iterable[Partition]) -> None:
        """Have partitions no more, nor count what was fetched of them."""
        for name in list(names):
            del self.positions[name], self._own[name]
            self.as_of_us.pop(name, None)
            self._written_elsewhere.pop(name, None)
            if self._goal is not None:
                self._goal.pop(name, None)
            for work in (*self._queue, *self._writing):
                work.left.add((self.store, name))

    def aim(self, name: Partition, goal: Position) -> None:
        """While it runs to a goal, let that be one of a partition that is new as well."""
        if self._goal is not None:
            self._goal[name] = goal

    def wake(self) -> None:
        """Have the thread look whether it may go on."""
        self._woken.notify()

    def end(self) -> None:
        """Write nothing more once the write under way is over."""
        self._ended = True
        for work in self._queue:
            self._release(work)
        self._queue.clear()
        self._woken.notify()

    # The thread's own

    def run(self, writer: StoreWriter) -> None:
        """Write until the end."""
        while True:
            with self._reading.lock:
                self._woken.wait_for(lambda: self._is_over or self.behind or self._may_write, LOOK_SECONDS)
                if self._is_over:
                    return
                behind, self._writing = self.behind, () if self.behind else self._take()
                borrow = self.borrows or self._is_written_elsewhere(self._writing)
            if behind:
                self._catch_up(writer)
            elif self._writing:
                self._write(writer, self._writing, borrow=borrow)

    @property
    def _is_over(self) -> bool:
        return self._ended or self._reading.ended

    @property
    def _may_write(self) -> bool:
        return bool(self._queue) and not self._reading.results.is_full

    def _take(self) -> list[Work]:
        """All that waits, up to MOST_RECORDS."""
        taken: list[Work] = []
        records = 0
        while self._may_write and (not taken or records + self._queue[0].records <= MOST_RECORDS):
            work = self._queue.popleft()
            self._bytes -= work.unit.size
            records += work.records
            taken.append(work)
        if taken:
            self._reading.room.notify()
        return taken

    def _is_written_elsewhere(self, taken: Iterable[Work]) -> bool:
        """Whether other stores have all of this, or had some of it when this process started, and so vectors that it lacks.

        Where they have a part, the lane is close behind them, and the process remembers what they asked.
        """
        before = any(not self._written_elsewhere.keys().isdisjoint(work.reached) for work in taken)
        return before or all(work.written for work in taken)

    def _write(self, writer: StoreWriter, taken: Sequence[Work], *, borrow: bool) -> None:
        """Write work, however long it takes, then advance; nothing is advanced when the lane is ended before."""
        units = [work.unit for work in taken if not work.unit.is_empty]
        pause = FIRST_PAUSE_SECONDS
        self._writing_since = time.monotonic() if units else None
        while True:
            try:
                written = writer.write(units, borrow=borrow) if units else None
            except UnavailableError as error:
                with self._reading.lock:
                    model = isinstance(error, ModelUnavailableError)
                    self._failed = ("embedding" if model else f"sink {self.store}", error.message)
                    if self._woken.wait_for(lambda: self._is_over, pause):
                        return
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            else:
                break
        with self._reading.lock:
            self._failed = self._writing_since = None
            self._advance(taken, written)

    def _advance(self, taken: Sequence[Work], written: Written | None) -> None:
        if written is not None:
            self._reading.results.add_written(written)
        for work in taken:
            work.written = True
            mine = {name for name in work.reached if name in self.positions and (self.store, name) not in work.left}
            for name in mine:
                place = work.reached[name]
                if at(place) >= at(self.positions[name]):
                    self.positions[name] = place
                    if name in self._written_elsewhere and has_reached(place, self._written_elsewhere[name]):
                        del self._written_elsewhere[name]
            for name in mine & work.unit.reached_us.keys():
                self.as_of_us[name] = max(work.unit.reached_us[name], self.as_of_us.get(name, 0))
            if work.waiting:
                self._release(work)
        self._writing = ()

    def _release(self, work: Work) -> None:
        work.waiting -= 1
        if not work.waiting:
            self._reading.results.add_searchable([work.unit])

    def _catch_up(self, writer: StoreWriter) -> None:
        """Read with a feed of its own until the shared feed's work follows without a hole."""
        own = AlignedFeed(self._reading.open_feed())
        try:
            while (wanted := self._wanted()) is not None:
                own.align(wanted)
                fetched = own.feed.fetch(FETCH_SECONDS)
                unit = self._reading.decode(fetched.records)
                with self._reading.lock:
                    work = Work(unit, len(fetched.records), own.still_followed(fetched, self._own))
                    self._writing = [work]
                self._write(writer, [work], borrow=True)
                caught_up_us = own.feed.caught_up_us()
                with self._reading.lock:
                    for name, moment in caught_up_us.items():
                        if own.follows(name, self._own) and not self._is_over:
                            self.as_of_us[name] = max(moment, self.as_of_us.get(name, 0))
        except SourceGoneError:
            with self._reading.lock:
                self._leap()
        finally:
            own.feed.close()

    def _wanted(self) -> dict[Partition, tuple[Followed, Position]] | None:
        """What its own feed is to follow now; None when the lane need not read for itself any more."""
        with self._reading.lock:
            while self._reading.results.is_full and not self._is_over:
                self._woken.wait(LOOK_SECONDS)
            if self._is_over or not self._still_behind():
                return None
            return {name: (one, self.positions[name]) for name, one in self._own.items()}

    def _still_behind(self) -> bool:
        filled = self._reading.queues_filled
        if self._goal is not None:
            if not all(has_reached(self.positions[name], goal) for name, goal in self._goal.items()):
                return True
            if self.attached:
                self.behind, self._goal = False, None
                return False
            if filled - self._aimed_at <= NEARLY_FULL:
                self._attach()
        self._goal, self._aimed_at = self._shared_positions(), filled
        return True

    def _attach(self) -> None:
        """Get what the shared feed fetches from now on; it follows all that the store needs."""
        self.attached = True
        for name, place in self.positions.items():
            if name not in self._reading.followed and not is_closed(place):
                self._reading.followed[name] = Followed(place)

    def _leap(self) -> None:
        """Go on where the shared feed is: what lies between is lost to this store, and reported."""
        shared = self._shared_positions()
        for name, place in list(self.positions.items()):
            # A shard that the other stores read no more is over; where it ended is not known here.
            end = shared.get(name, place | {"closed": True} if isinstance(place, dict) else place)
            if not has_reached(place, end):
                self._reading.results.add_gap(self.store, name, place, shared.get(name))
                self.positions[name] = end
        self._attach()
        self.behind, self._goal = False, None

    def _shared_positions(self) -> dict[Partition, Position]:
        return {name: one.reached for name, one in self._reading.followed.items() if name in self.positions}

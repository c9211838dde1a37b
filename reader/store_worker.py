"""The store worker: the thread of a reader that writes one store, at the store's own pace.

A worker is attached: it gets all that the shared feed fetches. Or it is behind: it reads with a feed of its own, is attached
once it has nearly caught up, and reads on to the shared feed's position of that moment.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING

from indexing.work_unit import WorkUnit, rows_of
from reader.following import AlignedFeed, FetchedUnit, Followed, has_reached, is_closed
from schemas.errors import ModelUnavailableError, SourceGoneError, UnavailableError
from sources.positions import as_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from indexing.result import Written
    from indexing.store_writer import StoreWriter
    from reader.results import Results
    from schemas.records import Record
    from sources.feeds import Feed, Partition, Position

MOST_UNITS, MOST_BYTES = 512, 8 << 20
"""Fetched units, and bytes of values, that may wait for a store."""
MOST_RECORDS = 512
"""Most records of one write of several fetched units: it bounds how long the next one waits."""
MOST_RECORDS_BEHIND = 8 * MOST_RECORDS
"""The same where more than that waits already: a large write takes less time for each record."""
MOST_WAITING_RECORDS = 4 * MOST_RECORDS
"""Records that are looked at behind texts that wait for the model's budget: each attempt reads all their rows."""
FETCH_SECONDS = 0.1
"""How long a fetch waits for a first record, and so the delay until partitions are followed or left."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5.0
"""Between two attempts to write a store, or to ask a model, that does not answer."""
NEARLY_FULL = 0.25
"""A worker has nearly caught up if the shared feed fetched no more of a queue while it read to that feed's last position."""
SLOW_SECONDS = 5.0
"""A longer step of a write is reported: a client may wait for an answer without an error."""
LOOK_SECONDS = 0.5
"""Longest wait of a thread without a notification."""


@dataclass
class Epoch:
    """The state that the shared feed and the workers of one epoch share; `lock` guards all but the functions."""

    open_feed: Callable[[], Feed]
    decode: Callable[[Iterable[Record]], WorkUnit]
    failed: Callable[[BaseException], None]
    """Keeps the error of a thread, and ends the epoch."""
    results: Results
    followed: dict[Partition, Followed] = field(default_factory=dict)
    """What the shared feed follows."""
    queues_filled: float = 0.0
    """How many full queues of a worker the shared feed has fetched."""
    ended: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Make the condition that the shared feed waits on."""
        self.room = threading.Condition(self.lock)


class StoreWorker:
    """A store's positions, and the thread that advances them. All but the thread's own methods are called with the lock."""

    def __init__(
        self,
        store: str,
        epoch: Epoch,
        positions: Mapping[Partition, Position],
        furthest: Mapping[Partition, Position],
        *,
        attached: bool,
    ) -> None:
        """Begin at positions, as `follow` does; a worker that is not attached is behind."""
        self.store = store
        self.positions: dict[Partition, Position] = {}
        self.as_of_us: dict[Partition, int] = {}
        """By partition: up to when all commits are written, as far as this worker knows."""
        self.attached, self.behind = attached, not attached
        self.use_peers = False
        """Whether it asks the other stores for vectors before the model, though it is attached."""
        self._failed: tuple[str, str] | None = None
        """What did not answer the last attempt at a write (as in `Harvest.away`), and a sentence about it."""
        self._writing_since: float | None = None
        self._epoch = epoch
        self._peers_reached: dict[Partition, Position] = {}
        """Where another store was ahead when this one began: up to which position."""
        self._own: dict[Partition, Followed] = {}
        """The partitions of its own feed, or of one that it would open."""
        self._goal: dict[Partition, Position] | None = None
        """The shared feed's positions when `queues_filled` was `_goal_set_at`, while its own feed reads up to them."""
        self._goal_set_at = 0.0
        self._queue: deque[FetchedUnit] = deque()
        self._bytes = 0
        self._writing: Sequence[FetchedUnit] = ()
        self._ended = False
        self._woken = threading.Condition(epoch.lock)
        self.follow(positions, furthest)

    # Called by the pipeline, with the lock

    @property
    def is_full(self) -> bool:
        """Whether the queue is full."""
        return len(self._queue) >= MOST_UNITS or self._bytes >= MOST_BYTES

    def away(self, step: str, since: float) -> tuple[str, str] | None:
        """What delays the store's write, and a sentence about it; `step` is its writer's current one, begun at `since`."""
        if self._failed is not None or self._writing_since is None:
            return self._failed
        seconds = time.monotonic() - max(self._writing_since, since)
        if seconds < SLOW_SECONDS:
            return None
        if step == "embed":
            return "embedding", f"the embedding model has not answered for {seconds:.0f} s"
        return f"sink {self.store}", f"sink {self.store} has not taken a write for {seconds:.0f} s"

    def put(self, fetched: FetchedUnit) -> None:
        """Add a unit of the shared feed."""
        self._queue.append(fetched)
        self._bytes += fetched.unit.size
        fetched.waiting += 1
        self._woken.notify()

    def fall_behind(self) -> None:
        """Drop the queue: the store's own feed reads those records again."""
        for fetched in self._queue:
            self._release(fetched)
        self._queue.clear()
        self._bytes = 0
        self.attached, self.behind, self._goal = False, True, None
        self._woken.notify()

    def follow(self, positions: Mapping[Partition, Position], furthest: Mapping[Partition, Position]) -> None:
        """Add partitions at these positions; `furthest` has the furthest position of any store in each."""
        for name, place in positions.items():
            self.positions[name], self._own[name] = place, Followed(place)
            if not has_reached(place, furthest[name]):
                self._peers_reached[name] = furthest[name]

    def leave(self, names: Iterable[Partition]) -> None:
        """Drop partitions, and do not count what was fetched of them."""
        for name in list(names):
            del self.positions[name], self._own[name]
            self.as_of_us.pop(name, None)
            self._peers_reached.pop(name, None)
            if self._goal is not None:
                self._goal.pop(name, None)
            for fetched in (*self._queue, *self._writing):
                fetched.left.add((self.store, name))

    def add_goal(self, name: Partition, goal: Position) -> None:
        """Add a new partition to the goal, if there is one."""
        if self._goal is not None:
            self._goal[name] = goal

    def wake(self) -> None:
        """Have the thread check its conditions."""
        self._woken.notify()

    def end(self) -> None:
        """Write nothing after the write that is under way."""
        self._ended = True
        for fetched in self._queue:
            self._release(fetched)
        self._queue.clear()
        self._woken.notify()

    # The thread's own

    def run(self, writer: StoreWriter) -> None:
        """Write until the end."""
        while True:
            with self._epoch.lock:
                self._woken.wait_for(lambda: self._is_over or self.behind or self._may_write, LOOK_SECONDS)
                if self._is_over:
                    return
                behind, self._writing = self.behind, () if self.behind else self._next_write()
                use_peers = self.use_peers or self._have_peers_written(self._writing)
            if behind:
                self._catch_up(writer)
            elif self._writing:
                self._write(writer, self._writing, use_peers=use_peers)

    @property
    def _is_over(self) -> bool:
        return self._ended or self._epoch.ended

    @property
    def _may_write(self) -> bool:
        return bool(self._queue) and not self._epoch.results.is_full

    def _next_write(self) -> list[FetchedUnit]:
        """The first units of the queue, up to MOST_RECORDS, or more if more than twice as many wait."""
        first: list[FetchedUnit] = []
        records, waiting = 0, sum(fetched.records for fetched in self._queue)
        most = MOST_RECORDS if waiting <= 2 * MOST_RECORDS else MOST_RECORDS_BEHIND
        while self._may_write and (not first or records + self._queue[0].records <= most):
            fetched = self._queue.popleft()
            self._bytes -= fetched.unit.size
            records += fetched.records
            first.append(fetched)
        if first:
            self._epoch.room.notify()
        return first

    def _have_peers_written(self, fetched_units: Iterable[FetchedUnit]) -> bool:
        """Whether peers have all of these units, or had some when this process started, and so vectors that are missing here.

        Where they have a part of them, this worker is close behind, and the process still has those embeddings.
        """
        before = any(not self._peers_reached.keys().isdisjoint(fetched.reached) for fetched in fetched_units)
        return before or all(fetched.written for fetched in fetched_units)

    def _write(self, writer: StoreWriter, fetched_units: Sequence[FetchedUnit], *, use_peers: bool) -> None:
        """Write units until it succeeds, then advance; a worker that is ended before advances nothing."""
        pause = FIRST_PAUSE_SECONDS
        self._writing_since = time.monotonic() if any(not fetched.unit.is_empty for fetched in fetched_units) else None
        while fetched_units:
            units = [fetched.unit for fetched in fetched_units if not fetched.unit.is_empty]
            try:
                written = writer.write(units, use_peers=use_peers) if units else None
            except UnavailableError as error:
                with self._epoch.lock:
                    model = isinstance(error, ModelUnavailableError)
                    self._failed = ("embedding" if model else f"sink {self.store}", error.message)
                    if self._woken.wait_for(lambda: self._is_over, pause):
                        return
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            else:
                with self._epoch.lock:
                    self._failed = None
                    fetched_units = self._advance_or_wait(fetched_units, written)
        with self._epoch.lock:
            self._writing_since = None

    def _advance_or_wait(self, fetched_units: Sequence[FetchedUnit], written: Written | None) -> Sequence[FetchedUnit]:
        """Advance past what is written; return what is to be written next with the rest, nothing if there is none.

        Rows whose texts wait for the model's budget hold up no other: the units behind theirs are written with them, each row by
        its newest change, and positions follow once their texts have had their turn.
        """
        rows = written.waiting if written is not None else set()
        written_units = list(takewhile(lambda fetched: rows.isdisjoint(rows_of(fetched.unit)), fetched_units))
        self._advance(written_units, written)
        rest = list(fetched_units[len(written_units) :])
        if rest:
            self._failed = ("embedding", f"the embedding model's budget is used up: the texts of {len(rows)} rows wait")
            self._woken.wait_for(lambda: self._is_over or self._may_write, LOOK_SECONDS)
            if self._is_over:
                return ()
            if sum(fetched.records for fetched in rest) < MOST_WAITING_RECORDS:
                rest += self._next_write()
            self._writing = rest
        return rest

    def _advance(self, fetched_units: Sequence[FetchedUnit], written: Written | None) -> None:
        if written is not None:
            self._epoch.results.add_written(written)
        for fetched in fetched_units:
            fetched.written = True
            left = {name for store, name in fetched.left if store == self.store}
            names = fetched.reached.keys() & self.positions.keys() - left
            for name in names:
                place = fetched.reached[name]
                if as_number(place) >= as_number(self.positions[name]):
                    self.positions[name] = place
                    if name in self._peers_reached and has_reached(place, self._peers_reached[name]):
                        del self._peers_reached[name]
            for name in names & fetched.unit.reached_us.keys():
                self.as_of_us[name] = max(fetched.unit.reached_us[name], self.as_of_us.get(name, 0))
            if fetched.waiting:
                self._release(fetched)
        self._writing = ()

    def _release(self, fetched: FetchedUnit) -> None:
        fetched.waiting -= 1
        if not fetched.waiting:
            self._epoch.results.add_searchable([fetched.unit])

    def _catch_up(self, writer: StoreWriter) -> None:
        """Read with a feed of its own until the units of the shared feed follow without a gap."""
        own = AlignedFeed(self._epoch.open_feed())
        try:
            while (partitions := self._partitions_to_read()) is not None:
                own.align(partitions)
                fetch = own.feed.fetch(FETCH_SECONDS)
                unit = self._epoch.decode(fetch.records)
                with self._epoch.lock:
                    fetched = FetchedUnit(unit, len(fetch.records), own.still_followed(fetch, self._own))
                    self._writing = [fetched]
                self._write(writer, [fetched], use_peers=True)
                caught_up_us = own.feed.caught_up_us()
                with self._epoch.lock:
                    for name, moment in caught_up_us.items():
                        if own.follows(name, self._own) and not self._is_over:
                            self.as_of_us[name] = max(moment, self.as_of_us.get(name, 0))
        except SourceGoneError:
            with self._epoch.lock:
                self._skip_lost()
        finally:
            own.feed.close()

    def _partitions_to_read(self) -> dict[Partition, tuple[Followed, Position]] | None:
        """The partitions and positions for its own feed; None when it needs none any more."""
        with self._epoch.lock:
            while self._epoch.results.is_full and not self._is_over:
                self._woken.wait(LOOK_SECONDS)
            if self._is_over or not self._still_behind():
                return None
            return {name: (one, self.positions[name]) for name, one in self._own.items()}

    def _still_behind(self) -> bool:
        filled = self._epoch.queues_filled
        if self._goal is not None:
            if not all(has_reached(self.positions[name], goal) for name, goal in self._goal.items()):
                return True
            if self.attached:
                self.behind, self._goal = False, None
                return False
            if filled - self._goal_set_at <= NEARLY_FULL:
                self._attach()
        self._goal, self._goal_set_at = self._shared_positions(), filled
        return True

    def _attach(self) -> None:
        """Take the units that the shared feed fetches from now on; it follows all partitions of the store."""
        self.attached = True
        for name, place in self.positions.items():
            if name not in self._epoch.followed and not is_closed(place):
                self._epoch.followed[name] = Followed(place)

    def _skip_lost(self) -> None:
        """Go on at the shared feed's positions: the records before them are lost to this store, and reported as gaps."""
        shared = self._shared_positions()
        for name, place in list(self.positions.items()):
            # A shard that the other stores read no more has ended; its last position is not known here.
            end = shared.get(name, place | {"closed": True} if isinstance(place, dict) else place)
            if not has_reached(place, end):
                self._epoch.results.add_gap(self.store, name, place, shared.get(name))
                self.positions[name] = end
        self._attach()
        self.behind, self._goal = False, None

    def _shared_positions(self) -> dict[Partition, Position]:
        return {name: one.reached for name, one in self._epoch.followed.items() if name in self.positions}

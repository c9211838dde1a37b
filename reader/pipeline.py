"""One epoch of a reader: a shared feed whose records are decoded once, and a worker for each store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from itertools import chain
from typing import TYPE_CHECKING

from reader.failures import reportable
from reader.following import AlignedFeed, FetchedUnit, Followed, has_reached, is_closed
from reader.messages import Harvest, Instruction
from reader.results import Results
from reader.store_worker import (
    FETCH_SECONDS,
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    LOOK_SECONDS,
    MOST_BYTES,
    MOST_UNITS,
    SLOW_SECONDS,
    Epoch,
    StoreWorker,
)
from reader.writers import Writers, thread_name
from schemas.errors import UnavailableError
from sources.feeds import Feed, Fetched, Partition, Position
from sources.positions import as_number, earlier

if TYPE_CHECKING:
    from indexing.work_unit import WorkUnit
    from schemas.records import Record

_PROOF_SECONDS = 0.1
"""Least time between two questions to the feed whether it has caught up."""
_STUCK_SECONDS = 120.0
"""A fetch that has not returned for so long never will: a client hangs, and the query begins again with another one."""


class Pipeline:
    """Reads the partitions of an instruction, writes them to its stores, and reports their positions."""

    def __init__(self, source: str, open_feed: Callable[[], Feed], writers: Writers, results: Results) -> None:
        """Begin without partitions; `source` is its name in the configuration."""
        self._source, self._writers = source, writers
        self._epoch = Epoch(open_feed, self._decode, self._fail, results)
        self._workers: dict[str, StoreWorker] = {}
        self._caught_up_us: dict[Partition, int] = {}
        """By partition: when the shared feed last had nothing that the workers had not got."""
        self._source_away: str | None = None
        self._fetching_since: float | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, daemon=True, name="feed")

    def follow(self, instruction: Instruction) -> None:
        """Read and write the partitions of an instruction from now on."""
        stores = {store: at for store, at in instruction.positions.items() if store in self._writers.stores}
        with self._epoch.lock:
            for store in self._workers.keys() - stores.keys():
                self._workers.pop(store).end()
            for store, worker in self._workers.items():
                worker.leave(worker.positions.keys() - stores[store].keys())
            self._unfollow_unread()
            self._add_new(stores, instruction.behind)
            for store, worker in self._workers.items():
                worker.use_peers = store in instruction.use_peers
            self._epoch.room.notify()
        if not self._thread.ident:
            self._thread.start()

    def harvest(self, address: str, batch: int) -> Harvest:
        """Return positions and results; raises the error that ended a thread."""
        model_counts = self._writers.indexer.model_counts()
        now_us = time.time_ns() // 1000
        with self._epoch.lock:
            if self._error is not None:
                raise reportable(self._error)
            result, gaps, new_counts = self._epoch.results.harvest(batch, model_counts)
            workers = self._workers
            harvest = Harvest(
                address,
                positions={store: dict(worker.positions) for store, worker in workers.items()},
                behind=tuple(store for store, worker in workers.items() if worker.behind),
                as_of_us={store: self._as_of_us(worker, now_us) for store, worker in workers.items()},
                closed=any(is_closed(place) for worker in workers.values() for place in worker.positions.values()),
                gaps=gaps,
                away=dict(filter(None, (worker.away(*self._writers.step(store)) for store, worker in workers.items()))),
                result=result,
                model_counts=new_counts,
            )
            if (away := self._why_source_is_away()) is not None:
                harvest.away[f"source {self._source}"] = away
            self._wake_all()
        return harvest

    def join(self, seconds: float) -> None:
        """Wait up to so long for the shared feed to be closed."""
        if self._thread.ident:
            self._thread.join(seconds)

    def end(self) -> None:
        """Stop reading, and writing after the writes under way; returns at once."""
        with self._epoch.lock:
            self._epoch.ended = True
            for worker in self._workers.values():
                worker.end()
            self._epoch.room.notify_all()

    def _why_source_is_away(self) -> str | None:
        seconds = 0.0 if (since := self._fetching_since) is None else time.monotonic() - since
        if seconds < SLOW_SECONDS:
            return self._source_away
        sentence = f"source {self._source}: a fetch has not returned for {seconds:.0f} s"
        if seconds >= _STUCK_SECONDS:
            raise UnavailableError(sentence)
        return sentence

    def _wake_all(self) -> None:
        self._epoch.room.notify_all()
        for worker in self._workers.values():
            worker.wake()

    # The followed partitions; all with the lock

    def _unfollow_unread(self) -> None:
        """Leave partitions that no attached store reads; without an attached store, those that no store reads."""
        attached = [worker for worker in self._workers.values() if worker.attached]
        read = {name for worker in attached or self._workers.values() for name in worker.positions}
        for name in self._epoch.followed.keys() - read:
            del self._epoch.followed[name]
            self._caught_up_us.pop(name, None)

    def _add_new(self, stores: Mapping[str, Mapping[Partition, Position]], behind: Iterable[str]) -> None:
        """Add new stores, and new partitions of stores; the shared feed begins at the earliest of those that are not behind."""
        new = {
            store: {n: place for n, place in positions.items() if not self._has(store, n)}
            for store, positions in stores.items()
        }
        keeping_up = {
            store: positions
            for store, positions in new.items()
            if (self._workers[store].attached if store in self._workers else True) and store not in behind
        }
        attached = {store for store, worker in self._workers.items() if worker.attached}
        first = keeping_up or {store: new[store] for store in attached} or new
        for name in {name for positions in first.values() for name in positions} - self._epoch.followed.keys():
            begin = reduce(earlier, (positions[name] for positions in first.values() if name in positions))
            self._epoch.followed[name] = Followed(begin)
        furthest = _furthest(stores)
        for store, positions in new.items():
            self._add(store, positions, furthest)

    def _has(self, store: str, name: Partition) -> bool:
        return store in self._workers and name in self._workers[store].positions

    def _add(self, store: str, positions: Mapping[Partition, Position], furthest: Mapping[Partition, Position]) -> None:
        """Add partitions to a store, and the store if it is new: behind when the shared feed is past any of them."""
        shared = self._epoch.followed
        is_attached = all(
            (n in shared and has_reached(p, shared[n].reached)) or is_closed(p) for n, p in positions.items()
        )
        worker = self._workers.get(store)
        if worker is None:
            worker = self._workers[store] = StoreWorker(store, self._epoch, positions, furthest, attached=is_attached)
            threading.Thread(target=self._write, args=(worker,), daemon=True, name=thread_name(store)).start()
            return
        worker.follow(positions, furthest)
        if worker.attached and not is_attached:
            worker.fall_behind()
        for name in positions.keys() & shared.keys():
            worker.add_goal(name, shared[name].reached)

    def _as_of_us(self, worker: StoreWorker, now_us: int) -> dict[Partition, int]:
        """Up to when all commits are written to a store, by partition; never later than now."""
        as_of_us = {}
        for name, place in worker.positions.items():
            known = worker.as_of_us.get(name, 0)
            shared = self._epoch.followed.get(name)
            if is_closed(place):
                known = now_us
            elif not worker.behind and shared is not None and as_number(place) >= as_number(shared.reached):
                known = max(known, self._caught_up_us.get(name, 0))
            as_of_us[name] = min(known, now_us)
        return as_of_us

    # The threads

    def _write(self, worker: StoreWorker) -> None:
        try:
            with self._writers.writer(worker.store) as writer:
                worker.run(writer)
        except BaseException as error:  # noqa: BLE001 - raised by the next harvest
            self._fail(error)

    def _read(self) -> None:
        try:
            self._read_on(AlignedFeed(self._epoch.open_feed()))
        except BaseException as error:  # noqa: BLE001 - raised by the next harvest
            self._fail(error)

    def _read_on(self, shared: AlignedFeed) -> None:
        """Fetch, decode and distribute until the end."""
        proven_at = 0.0
        try:
            while (partitions := self._may_read()) is not None:
                self._fetching_since = time.monotonic()
                shared.align(partitions)
                fetched = shared.feed.fetch(FETCH_SECONDS)
                self._source_away, self._fetching_since = shared.feed.away, None
                if fetched.records or fetched.reached:
                    self._distribute(shared, fetched)
                if time.monotonic() - proven_at >= _PROOF_SECONDS:
                    caught_up_us, proven_at = shared.feed.caught_up_us(), time.monotonic()
                    with self._epoch.lock:
                        self._caught_up_us |= {
                            n: us for n, us in caught_up_us.items() if shared.follows(n, self._epoch.followed)
                        }
        finally:
            shared.feed.close()

    def _may_read(self) -> dict[Partition, tuple[Followed, Position]] | None:
        """The partitions and positions for the shared feed, once there is room for more; None at the end."""
        epoch = self._epoch
        with epoch.lock:
            while not (epoch.ended or self._has_room):
                epoch.room.wait(LOOK_SECONDS)
            return None if epoch.ended else {name: (one, one.reached) for name, one in epoch.followed.items()}

    @property
    def _has_room(self) -> bool:
        """Whether some attached store has room: one without falls behind, so that the others do not wait for it."""
        free = any(worker.attached and not worker.is_full for worker in self._workers.values())
        return free and bool(self._epoch.followed) and not self._epoch.results.is_full

    def _distribute(self, shared: AlignedFeed, fetched: Fetched) -> None:
        """Decode records and queue them for the attached stores."""
        unit = self._epoch.decode(fetched.records)
        with self._epoch.lock:
            queued = FetchedUnit(unit, len(fetched.records), shared.still_followed(fetched, self._epoch.followed))
            for name, place in queued.reached.items():
                self._epoch.followed[name].reached = place
            self._epoch.results.result.add_unit(unit)
            self._epoch.queues_filled += max(1 / MOST_UNITS, unit.size / MOST_BYTES)
            attached = [worker for worker in self._workers.values() if worker.attached]
            full = [worker for worker in attached if worker.is_full]
            for worker in full if len(full) < len(attached) else ():
                worker.fall_behind()
            for worker in attached:
                if worker.attached:
                    worker.put(queued)

    def _decode(self, records: Iterable[Record]) -> WorkUnit:
        """Decode records, again until the schema registry that they need answers; raises its error at the end of the epoch."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                unit = self._writers.indexer.decode(records)
            except UnavailableError as error:
                self._source_away = error.message
                with self._epoch.lock:
                    if self._epoch.ended or self._epoch.room.wait_for(lambda: self._epoch.ended, pause):
                        raise
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            else:
                self._source_away = None  # the records were fetched
                return unit

    def _fail(self, error: BaseException) -> None:
        """Keep the first error, and end the epoch."""
        with self._epoch.lock:
            if self._error is None and not self._epoch.ended:
                self._error = reportable(error)
        self.end()


def _furthest(stores: Mapping[str, Mapping[Partition, Position]]) -> dict[Partition, Position]:
    """The furthest position of any store in each partition."""
    furthest: dict[Partition, Position] = {}
    for name, place in chain.from_iterable(positions.items() for positions in stores.values()):
        if name not in furthest or has_reached(place, furthest[name]):
            furthest[name] = place
    return furthest

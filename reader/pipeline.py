"""One epoch of a reader: the shared feed, decoded once, and a lane for each store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import reduce
from itertools import chain
from typing import TYPE_CHECKING

from reader.failures import told
from reader.following import AlignedFeed, Followed, Work, has_reached, is_closed
from reader.lanes import FETCH_SECONDS, LOOK_SECONDS, MOST_BYTES, MOST_WORK, Reading, StoreLane
from reader.messages import Harvest
from reader.results import Results
from reader.writers import lane_name
from sources.positions import at, earlier

if TYPE_CHECKING:
    from collections.abc import Iterable

    from reader.messages import Instruction
    from reader.writers import Writers
    from sources.feeds import Feed, Fetched, Partition, Position

_PROOF_SECONDS = 0.1
"""How often the feed is asked at most when it was seen to hold nothing more."""


class Pipeline:
    """Reads what an instruction says, writes it to the instruction's stores, and tells how far each has come."""

    def __init__(self, source: str, open_feed: Callable[[], Feed], writers: Writers, results: Results) -> None:
        """Begin with nothing to read; `source` is its name in the configuration."""
        self._source, self._writers = source, writers
        self._reading = Reading(open_feed, writers.indexer.decode, self._fail, results)
        self._lanes: dict[str, StoreLane] = {}
        self._caught_up_us: dict[Partition, int] = {}
        """By partition: when the shared feed was seen to hold nothing that was not handed to the lanes."""
        self._source_away: str | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, daemon=True, name="feed")

    def follow(self, instruction: Instruction) -> None:
        """Read and write what an instruction says from now on."""
        stores = {
            store: positions for store, positions in instruction.positions.items() if store in self._writers.stores
        }
        with self._reading.lock:
            for store in self._lanes.keys() - stores.keys():
                self._lanes.pop(store).end()
            for store, lane in self._lanes.items():
                lane.leave(lane.positions.keys() - stores[store].keys())
            self._drop_what_nobody_reads()
            self._take_up(stores, instruction.behind)
            for store, lane in self._lanes.items():
                lane.borrows = store in instruction.borrowing
            self._reading.room.notify()
        if not self._thread.ident:
            self._thread.start()

    def harvest(self, address: str, batch: int) -> Harvest:
        """Tell how far all is written, and what became of it; raises what a thread died of."""
        asked = self._writers.indexer.asked()
        now_us = time.time_ns() // 1000
        with self._reading.lock:
            if self._error is not None:
                raise told(self._error)
            result, gaps, new = self._reading.results.harvest(batch, asked)
            lanes = self._lanes
            found = Harvest(
                address,
                positions={store: dict(lane.positions) for store, lane in lanes.items()},
                behind=tuple(store for store, lane in lanes.items() if lane.behind),
                as_of_us={store: self._as_of_us(lane, now_us) for store, lane in lanes.items()},
                closed=any(is_closed(place) for lane in lanes.values() for place in lane.positions.values()),
                gaps=gaps,
                away=dict(filter(None, (lane.away(*self._writers.step(store)) for store, lane in lanes.items()))),
                result=result,
                asked=new,
            )
            if self._source_away is not None:
                found.away[f"source {self._source}"] = self._source_away
            self._wake_all()
        return found

    def join(self, seconds: float) -> None:
        """Wait a while for the shared feed to be closed."""
        if self._thread.ident:
            self._thread.join(seconds)

    def end(self) -> None:
        """Stop reading, and writing after the writes under way; returns at once."""
        with self._reading.lock:
            self._reading.ended = True
            for lane in self._lanes.values():
                lane.end()
            self._reading.room.notify_all()

    def _wake_all(self) -> None:
        self._reading.room.notify_all()
        for lane in self._lanes.values():
            lane.wake()

    # What is followed; all with the lock

    def _drop_what_nobody_reads(self) -> None:
        """Have the shared feed leave what no attached store reads any more; without one it stays where it is."""
        attached = [lane for lane in self._lanes.values() if lane.attached]
        wanted = {name for lane in attached or self._lanes.values() for name in lane.positions}
        for name in self._reading.followed.keys() - wanted:
            del self._reading.followed[name]
            self._caught_up_us.pop(name, None)

    def _take_up(self, stores: Mapping[str, Mapping[Partition, Position]], behind: Iterable[str]) -> None:
        """Add new stores, and new partitions of stores: the shared feed begins where the earliest store does that keeps up."""
        new = {
            store: {n: place for n, place in positions.items() if not self._has(store, n)}
            for store, positions in stores.items()
        }
        keeping_up = {
            store: positions
            for store, positions in new.items()
            if (self._lanes[store].attached if store in self._lanes else True) and store not in behind
        }
        attached = {store for store, lane in self._lanes.items() if lane.attached}
        first = keeping_up or {store: new[store] for store in attached} or new
        for name in {name for positions in first.values() for name in positions} - self._reading.followed.keys():
            begin = reduce(earlier, (positions[name] for positions in first.values() if name in positions))
            self._reading.followed[name] = Followed(begin)
        furthest = _furthest(stores)
        for store, positions in new.items():
            self._add(store, positions, furthest)

    def _has(self, store: str, name: Partition) -> bool:
        return store in self._lanes and name in self._lanes[store].positions

    def _add(self, store: str, positions: Mapping[Partition, Position], furthest: Mapping[Partition, Position]) -> None:
        """Add partitions to a store, and the store if it is new: behind when the shared feed is past any of them."""
        shared = self._reading.followed
        follows = all((n in shared and has_reached(p, shared[n].reached)) or is_closed(p) for n, p in positions.items())
        lane = self._lanes.get(store)
        if lane is None:
            lane = self._lanes[store] = StoreLane(store, self._reading, positions, furthest, attached=follows)
            threading.Thread(target=self._write, args=(lane,), daemon=True, name=lane_name(store)).start()
            return
        lane.follow(positions, furthest)
        if lane.attached and not follows:
            lane.fall_behind()
        for name in positions.keys() & shared.keys():
            lane.aim(name, shared[name].reached)

    def _as_of_us(self, lane: StoreLane, now_us: int) -> dict[Partition, int]:
        """Up to when all commits are written to a store, by partition; never later than now."""
        as_of_us = {}
        for name, place in lane.positions.items():
            known = lane.as_of_us.get(name, 0)
            shared = self._reading.followed.get(name)
            if is_closed(place):
                known = now_us
            elif not lane.behind and shared is not None and at(place) >= at(shared.reached):
                known = max(known, self._caught_up_us.get(name, 0))
            as_of_us[name] = min(known, now_us)
        return as_of_us

    # The threads

    def _write(self, lane: StoreLane) -> None:
        try:
            with self._writers.writer(lane.store) as writer:
                lane.run(writer)
        except BaseException as error:  # noqa: BLE001 - raised by the next harvest
            self._fail(error)

    def _read(self) -> None:
        try:
            self._read_on(AlignedFeed(self._reading.open_feed()))
        except BaseException as error:  # noqa: BLE001 - raised by the next harvest
            self._fail(error)

    def _read_on(self, shared: AlignedFeed) -> None:
        """Fetch, decode and hand over until the end."""
        proven_at = 0.0
        try:
            while (wanted := self._may_read()) is not None:
                shared.align(wanted)
                fetched = shared.feed.fetch(FETCH_SECONDS)
                self._source_away = shared.feed.away
                if fetched.records or fetched.reached:
                    self._hand_over(shared, fetched)
                if time.monotonic() - proven_at >= _PROOF_SECONDS:
                    caught_up_us, proven_at = shared.feed.caught_up_us(), time.monotonic()
                    with self._reading.lock:
                        self._caught_up_us |= {
                            n: us for n, us in caught_up_us.items() if shared.follows(n, self._reading.followed)
                        }
        finally:
            shared.feed.close()

    def _may_read(self) -> dict[Partition, tuple[Followed, Position]] | None:
        """What the shared feed is to follow, once there is room for more; None at the end."""
        reading = self._reading
        with reading.lock:
            while not (reading.ended or self._has_room):
                reading.room.wait(LOOK_SECONDS)
            return None if reading.ended else {name: (one, one.reached) for name, one in reading.followed.items()}

    @property
    def _has_room(self) -> bool:
        """Whether some attached store can take more: one that cannot falls behind rather than keep the others waiting."""
        free = any(lane.attached and not lane.is_full for lane in self._lanes.values())
        return free and bool(self._reading.followed) and not self._reading.results.is_full

    def _hand_over(self, shared: AlignedFeed, fetched: Fetched) -> None:
        """Decode what was fetched and give it to the attached stores."""
        unit = self._reading.decode(fetched.records)
        with self._reading.lock:
            work = Work(unit, len(fetched.records), shared.still_followed(fetched, self._reading.followed))
            for name, place in work.reached.items():
                self._reading.followed[name].reached = place
            self._reading.results.result.add_unit(unit)
            self._reading.queues_filled += max(1 / MOST_WORK, unit.size / MOST_BYTES)
            attached = [lane for lane in self._lanes.values() if lane.attached]
            full = [lane for lane in attached if lane.is_full]
            for lane in full if len(full) < len(attached) else ():
                lane.fall_behind()
            for lane in attached:
                if lane.attached:
                    lane.put(work)

    def _fail(self, error: BaseException) -> None:
        """Keep the first error, and end the epoch."""
        with self._reading.lock:
            if self._error is None and not self._reading.ended:
                self._error = told(error)
        self.end()


def _furthest(stores: Mapping[str, Mapping[Partition, Position]]) -> dict[Partition, Position]:
    """How far some store has come with each partition."""
    furthest: dict[Partition, Position] = {}
    for name, place in chain.from_iterable(positions.items() for positions in stores.values()):
        if name not in furthest or has_reached(place, furthest[name]):
            furthest[name] = place
    return furthest

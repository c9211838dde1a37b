"""Reads ahead: one thread a shard, into a bounded buffer; on the driver for batches with an end, in a reader for a feed.

Kinesis cannot be asked where a shard ends, so the end of a batch is what has been read by then. The records themselves
are kept until their batch is committed and travel with it, so that each is fetched once: a shard gives 2 MiB and five
calls a second to all its readers together, and a batch that fetched again on the executors would halve that.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from schemas.errors import PipelineError, UnavailableError
from sources.kinesis.client import InUseError, IteratorError, ThrottledError
from sources.kinesis.fan_out import IN_USE_S, TAKEN_OVER_S
from sources.kinesis.loss import confirm_kept, refuse_another

if TYPE_CHECKING:
    from sources.kinesis.client import Page, Stream
    from sources.kinesis.fan_out import Consumer
    from sources.kinesis.offsets import Identity, Mark
    from sources.kinesis.records import RawRecord

BUFFER_BYTES = 64 * 1024 * 1024
"""Bytes read ahead over all shards before the threads pause."""
PAGE_BYTES = 10 * 1024 * 1024
"""Most bytes of one GetRecords (Kinesis API reference)."""
BATCH_BYTES = 16 * 1024 * 1024
"""Bytes of one shard in one batch: they travel in the task's description."""
THROTTLED_PAUSE_S, AWAY_PAUSE_S = 5.0, 2.0
"""Longest pause between two calls while Kinesis throttles, and while it does not answer, in seconds."""
PASSING_S = 10.0
"""How long Kinesis may throttle a shard's reads, or refuse new iterators, before it counts as away, in seconds."""

logger = logging.getLogger(__name__)


@dataclass
class _Lane:
    """What was read ahead of one shard, and how far."""

    shard_id: str
    start: Mark
    """The mark the buffer begins after."""
    pause: float
    """Least time between two calls after the last answer or failure, in seconds."""
    records: list[RawRecord] = field(default_factory=list)
    asked_ms: int = 0
    """When the page last kept was asked for."""
    tip_ms: int = 0
    """When the shard last had nothing more to give, in milliseconds; 0 when it never has."""
    behind: bool = True
    """Whether the next page may be a large one."""
    ended: bool = False
    failure: PipelineError | None = None
    failing_since: float | None = None
    """When the first of the calls failed that have all failed since, by the monotonic clock."""
    away: str | None = None
    """What does not answer, in a sentence."""
    continuation: str = ""
    """Sequence number after which a subscription goes on, when that is further than the last record."""
    left: threading.Event = field(default_factory=threading.Event)
    """Set when nobody wants the shard any more."""

    def reached(self) -> Mark:
        """The mark after everything buffered; an idle shard's says when it last had no more, however long ago a record came."""
        mark = _after(self.start, self.records)
        return replace(mark, seen_ms=max(mark.seen_ms, self.tip_ms))


class ReadAhead:
    """The buffers of all shards a query reads; safe for the threads that fill them and the one that takes from them."""

    def __init__(
        self,
        stream: Stream,
        identity: Identity | None,
        *,
        interval_s: float,
        drain: bool = False,
        buffer_bytes: int = BUFFER_BYTES,
        consumer: Consumer | None = None,
    ) -> None:
        """Fill nothing yet.

        Without an identity the stream is the one that answers first. With `drain`, a shard is left alone once it has
        nothing more to give. With a consumer, records are pushed, and polled wherever no subscription is to be had.
        """
        self._stream = stream
        self._identity = identity
        self._retention_ms = 0
        self._interval_s = interval_s
        self._drain = drain
        self._lanes: dict[str, _Lane] = {}
        self._buffer_bytes = buffer_bytes
        self._consumer = consumer
        self._bytes = 0
        self._expected = 0
        self._began_ms = _now_ms()
        self._changed = threading.Condition()
        self._news = False

    def follow(self, shard_id: str, mark: Mark) -> None:
        """Start reading a shard after a mark, unless it is being read already."""
        with self._changed:
            if shard_id in self._lanes or mark.closed:
                return
            lane = self._lanes[shard_id] = _Lane(shard_id, mark, self._interval_s)
        threading.Thread(target=self._read, args=(lane,), name=f"kinesis-{shard_id}", daemon=True).start()

    def leave(self, shard_id: str) -> None:
        """Read a shard no more and drop what was read ahead; its thread ends with the call that it is in."""
        with self._changed:
            lane = self._lanes.pop(shard_id, None)
            if lane is not None:
                lane.left.set()
                self._bytes -= _size(lane.records)
                self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait until something was read or went wrong since the last call, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._news, seconds)
            self._news = False

    def raise_failure(self) -> None:
        """Raise what stopped a shard's thread."""
        with self._changed:
            failures = [lane.failure for lane in self._lanes.values() if lane.failure]
        if failures:
            raise failures[0]

    @property
    def away(self) -> str | None:
        """What does not answer now, or has throttled for long, in one sentence."""
        with self._changed:
            return next((lane.away for lane in self._lanes.values() if lane.away), None)

    def take(self, shard_id: str, mark: Mark, limit: int, size: int = BATCH_BYTES) -> Mark:
        """Go on from a mark by records that were read ahead: at most `limit`, and those within `size` bytes, or one.

        The mark itself when there are none.
        """
        with self._changed:
            lane = self._lanes.get(shard_id)
            if lane is None:
                return mark
            ahead = _within(_later(lane, mark), limit, size)
            reached = _after(mark, ahead)
            if reached.count < lane.reached().count:
                return reached
            if lane.tip_ms:
                reached = replace(reached, seen_ms=max(reached.seen_ms, lane.tip_ms))
            # An idle shard's mark must stay as it is: a new one would be a batch.
            return replace(reached, closed=lane.ended) if ahead or lane.ended or self._is_stale(mark, lane) else mark

    def slice(self, shard_id: str, start: Mark, end: Mark) -> list[RawRecord] | None:
        """Return the records between two marks, or None when they are not all buffered."""
        with self._changed:
            lane = self._lanes.get(shard_id)
            if lane is None or lane.start.count > start.count or lane.reached().count < end.count:
                return None
            return _later(lane, start)[: end.count - start.count]

    def forget(self, shard_id: str, mark: Mark) -> None:
        """Drop what lies before a mark: its batch is committed."""
        with self._changed:
            lane = self._lanes.get(shard_id)
            if lane is None:
                return
            done = lane.records[: max(0, mark.count - lane.start.count)]
            del lane.records[: len(done)]
            lane.start = _after(lane.start, done)
            self._bytes -= _size(done)
            if mark.closed and not lane.records:
                del self._lanes[shard_id]
            self._changed.notify_all()

    def drained(self, shard_id: str) -> bool:
        """Tell whether a shard has nothing more to give since this feed began."""
        with self._changed:
            lane = self._lanes.get(shard_id)
            return lane is not None and (lane.ended or lane.tip_ms > 0)

    def empty_since(self, marks: Mapping[str, Mark]) -> dict[str, int]:
        """When each shard that is open held no more than its mark, in milliseconds; 0 when it may hold more.

        Also 0 of one that was just found to have ended: its children may hold records by then.
        """
        with self._changed:
            lanes = {shard_id: self._lanes.get(shard_id) for shard_id, mark in marks.items() if not mark.closed}
            return {
                shard_id: lane.tip_ms
                if lane and not lane.ended and lane.reached().count == marks[shard_id].count
                else 0
                for shard_id, lane in lanes.items()
            }

    def stop(self) -> None:
        """Leave every shard."""
        with self._changed:
            shards = list(self._lanes)
        for shard_id in shards:
            self.leave(shard_id)

    def _is_stale(self, mark: Mark, lane: _Lane) -> bool:
        """Tell whether an idle shard's mark should say again that nothing was missed; eight times a retention do."""
        return lane.tip_ms - mark.seen_ms > self._retention_ms // 8

    def _read(self, lane: _Lane) -> None:
        try:
            for page in self._arriving(lane):
                self._keep(lane, page)
                if lane.ended or (self._drain and lane.tip_ms):
                    return
        except PipelineError as error:
            lane.failure = error
        except Exception as error:  # noqa: BLE001 - a thread has nobody else to tell
            lane.failure = PipelineError(f"{lane.shard_id}: {type(error).__name__} while reading ahead.")
        finally:
            with self._changed:
                self._news = True
                self._changed.notify_all()

    def _arriving(self, lane: _Lane) -> Iterator[Page]:
        if self._consumer is None:
            yield from self._polled(lane)
            return
        while not lane.left.is_set():
            seconds = yield from self._pushed(lane, self._consumer)
            yield from self._polled(lane, seconds)

    def _pushed(self, lane: _Lane, consumer: Consumer) -> Generator[Page, None, float]:
        """Yield page after page of one subscription; return how long to poll before the next, in seconds."""
        began, in_use_s = time.monotonic(), IN_USE_S
        try:
            self._confirm(lane)
            for page, known_ms in consumer.pages(lane.shard_id, lane.reached(), lane.continuation):
                lane.failing_since, lane.away, lane.pause = None, None, self._interval_s
                lane.asked_ms = max(lane.asked_ms, known_ms)
                in_use_s = TAKEN_OVER_S
                yield page
                lane.continuation = page.next_iterator or ""
                with self._changed:
                    while not lane.left.is_set() and self._is_full(0):
                        self._changed.wait(1.0)
                if lane.left.is_set():
                    break
        except InUseError:
            return in_use_s
        except UnavailableError as error:
            if not lane.left.is_set() and lane.away is None:
                logger.warning("kinesis: %s; the shard is polled meanwhile", error.message)
            return IN_USE_S
        return 0.0 if time.monotonic() - began > IN_USE_S else IN_USE_S

    def _polled(self, lane: _Lane, seconds: float = math.inf) -> Iterator[Page]:
        """Fetch page after page, slowing down when asked to and waiting out an endpoint that does not answer."""
        iterator: str | None = None
        until = time.monotonic() + seconds
        while not lane.left.is_set() and time.monotonic() < until:
            began = time.monotonic()
            try:
                iterator = iterator or self._open(lane)
                with self._room(lane):
                    lane.asked_ms = _now_ms()
                    page = self._stream.fetch(lane.shard_id, iterator)
            except UnavailableError as error:
                iterator = None if isinstance(error, IteratorError) else iterator
                self._wait_out(lane, error)
                continue
            lane.failing_since, lane.away, lane.pause = None, None, self._interval_s
            iterator = page.next_iterator
            lane.continuation = "" if page.records else lane.continuation
            yield page
            lane.left.wait(max(0.0, min(began + self._interval_s, until) - time.monotonic()))

    def _wait_out(self, lane: _Lane, error: UnavailableError) -> None:
        """Pause after a call that failed, longer each time; what lasts is told."""
        if lane.left.is_set():
            return
        lane.behind = True  # when it is back, so may be what came meanwhile
        throttled = isinstance(error, ThrottledError)
        passing = throttled or isinstance(error, IteratorError)
        now = time.monotonic()
        lane.failing_since = lane.failing_since or now
        if lane.away is None and (not passing or now - lane.failing_since > PASSING_S):
            lane.away = error.message
            logger.warning("kinesis: %s; trying again until it passes", error.message)
        lane.pause = min(max(lane.pause, 0.1) * 2, THROTTLED_PAUSE_S if throttled else AWAY_PAUSE_S)
        lane.left.wait(lane.pause * random.uniform(0.5, 1))  # noqa: S311 - spreads the readers' calls

    def _open(self, lane: _Lane) -> str:
        """Get an iterator after everything buffered."""
        self._confirm(lane)
        return self._stream.iterator(lane.shard_id, lane.reached())

    def _confirm(self, lane: _Lane) -> None:
        """Raise SourceGoneError when it is another stream, or something after everything buffered may have expired."""
        summary = self._stream.summary()
        with self._changed:
            self._identity = self._identity or summary.identity
            self._retention_ms = summary.retention_ms
        refuse_another(self._stream, summary, self._identity)
        confirm_kept(self._stream, lane.shard_id, lane.reached(), summary.retention_ms)

    def _keep(self, lane: _Lane, page: Page) -> None:
        with self._changed:
            if lane.left.is_set():
                return
            lane.records.extend(page.records)
            self._bytes += _size(page.records)
            lane.behind = page.behind_ms > 0
            lane.ended = page.next_iterator is None
            # Under steady writes no page is empty: a record that arrived since this began is as good.
            if page.behind_ms == 0 and (not page.records or page.records[-1].arrival_ms >= self._began_ms):
                lane.tip_ms = lane.asked_ms
            self._news = True
            self._changed.notify_all()

    @contextmanager
    def _room(self, lane: _Lane) -> Iterator[None]:
        """Wait until the buffer has room for a page, and reserve it: as many shards as there are may be far behind."""
        with self._changed:
            page = PAGE_BYTES if lane.behind else 0
            while not lane.left.is_set() and self._is_full(page):
                self._changed.wait(1.0)
                page = PAGE_BYTES  # so much may have come meanwhile
            self._expected += page
        try:
            yield
        finally:
            with self._changed:
                self._expected -= page
                self._changed.notify_all()

    def _is_full(self, page: int) -> bool:
        if not page:
            return self._bytes > self._buffer_bytes
        taken = self._bytes + self._expected
        return taken > 0 and taken + page > self._buffer_bytes


def _later(lane: _Lane, mark: Mark) -> list[RawRecord]:
    return lane.records[max(0, mark.count - lane.start.count) :]


def _within(records: list[RawRecord], limit: int, most: int) -> list[RawRecord]:
    """Cut records to a number and to a size in bytes, but never to nothing."""
    size = 0
    for index, record in enumerate(records[:limit]):
        size += len(record.data)
        if size > most and index:
            return records[:index]
    return records[:limit]


def _size(records: Iterable[RawRecord]) -> int:
    return sum(len(record.data) for record in records)


def _after(mark: Mark, records: list[RawRecord]) -> Mark:
    if not records:
        return mark
    last = records[-1]
    return replace(
        mark, sequence=last.sequence, count=mark.count + len(records), seen_ms=max(mark.seen_ms, last.arrival_ms)
    )


def _now_ms() -> int:
    return int(time.time() * 1000)

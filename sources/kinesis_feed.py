"""Reads ahead: one thread a shard, into a bounded buffer; on the driver for batches with an end, in a task of an open one.

Kinesis cannot be asked where a shard ends, so the end of a batch is what has been read by then. The records themselves
are kept until their batch is committed and travel with it, so that each is fetched once: a shard gives 2 MiB and five
calls a second to all its readers together, and a batch that fetched again on the executors would halve that.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from schemas.errors import PipelineError, UnavailableError
from sources.kinesis_client import IteratorError

if TYPE_CHECKING:
    from sources.kinesis_client import Page, Stream
    from sources.kinesis_offsets import Identity, Mark
    from sources.kinesis_records import RawRecord

BUFFER_BYTES = 64 * 1024 * 1024
"""Bytes read ahead over all shards before the threads pause."""
BATCH_BYTES = 16 * 1024 * 1024
"""Bytes of one shard in one batch: they travel in the task's description."""
MAX_PAUSE_S = 5.0
"""Longest pause between two calls while Kinesis throttles or does not answer, in seconds."""

logger = logging.getLogger(__name__)


class Taken(NamedTuple):
    """Records of one shard after a mark, and the mark they lead to."""

    records: list[RawRecord]
    mark: Mark


@dataclass
class _Lane:
    """What was read ahead of one shard, and how far."""

    shard_id: str
    start: Mark
    """The mark the buffer begins after."""
    records: list[RawRecord] = field(default_factory=list)
    asked_ms: int = 0
    """When the page last kept was asked for."""
    tip_ms: int = 0
    """When the shard last had nothing more to give, in milliseconds; 0 when it never has."""
    ended: bool = False
    iterator: str | None = None
    """Where the next page begins, once a page was read."""
    failure: PipelineError | None = None

    def reached(self) -> Mark:
        """The mark after everything buffered."""
        return _after(self.start, self.records)


class Feed:
    """The buffers of all shards a query reads; safe for the threads that fill them and the one that plans batches."""

    def __init__(
        self, stream: Stream, identity: Identity, retention_ms: int, *, interval_s: float, drain: bool = False
    ) -> None:
        """Fill nothing yet. With `drain`, a shard is left alone once it has nothing more to give."""
        self._stream = stream
        self._identity = identity
        self._retention_ms = retention_ms
        self._interval_s = interval_s
        self._drain = drain
        self._lanes: dict[str, _Lane] = {}
        self._bytes = 0
        self._began_ms = _now_ms()
        self._changed = threading.Condition()
        self._news = False
        self._stopped = threading.Event()

    def follow(self, shard_id: str, mark: Mark, iterator: str | None = None) -> None:
        """Start reading a shard after a mark, unless it is being read already; with the iterator that another feed left there."""
        with self._changed:
            if shard_id in self._lanes or mark.closed:
                return
            lane = self._lanes[shard_id] = _Lane(shard_id, mark, iterator=iterator)
        threading.Thread(target=self._read, args=(lane,), name=f"kinesis-{shard_id}", daemon=True).start()

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

    def take(self, shard_id: str, mark: Mark, limit: int) -> Mark:
        """Go on from a mark by at most `limit` records of what was read ahead; the mark itself when there are none."""
        with self._changed:
            lane = self._lanes.get(shard_id)
            if lane is None:
                return mark
            ahead = _within(_later(lane, mark), limit)
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
            self._bytes -= sum(len(record.data) for record in done)
            if mark.closed and not lane.records:
                del self._lanes[shard_id]
            self._changed.notify_all()

    def drained(self, shard_id: str) -> bool:
        """Tell whether a shard has nothing more to give since this feed began."""
        with self._changed:
            lane = self._lanes.get(shard_id)
            return lane is not None and (lane.ended or lane.tip_ms > 0)

    def empty_since(self, marks: Mapping[str, Mark]) -> dict[str, int]:
        """When each shard that is open held no more than its mark, in milliseconds; 0 when it may hold more."""
        with self._changed:
            lanes = {shard_id: self._lanes.get(shard_id) for shard_id, mark in marks.items() if not mark.closed}
            return {
                shard_id: lane.tip_ms if lane and lane.reached().count == marks[shard_id].count else 0
                for shard_id, lane in lanes.items()
            }

    def left(self, shard_id: str, mark: Mark) -> str | None:
        """The iterator after a mark, for another feed to go on with; None when this one has read on."""
        with self._changed:
            lane = self._lanes.get(shard_id)
            return lane.iterator if lane is not None and lane.reached().count == mark.count else None

    def stop(self) -> None:
        """Let the threads end."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()

    def _is_stale(self, mark: Mark, lane: _Lane) -> bool:
        """Tell whether an idle shard's mark should say again that nothing was missed; eight times a retention do."""
        return lane.tip_ms - mark.seen_ms > self._retention_ms // 8

    def _read(self, lane: _Lane) -> None:
        try:
            for page in self._pages(lane):
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

    def _pages(self, lane: _Lane) -> Iterator[Page]:
        """Fetch page after page, slowing down when asked to and waiting out an endpoint that does not answer."""
        iterator = lane.iterator
        pause = self._interval_s
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                if iterator is None:
                    iterator = self._open(lane)
                lane.asked_ms = _now_ms()
                page = self._stream.fetch(lane.shard_id, iterator)
            except IteratorError:
                iterator = None
                self._stopped.wait(self._interval_s)
                continue
            except UnavailableError as error:
                if pause == self._interval_s:  # once an outage
                    logger.warning("kinesis: %s; trying again until it passes", error.message)
                pause = min(max(pause, 0.1) * 2, MAX_PAUSE_S)
                self._stopped.wait(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads the readers' calls
                continue
            pause = self._interval_s
            iterator = page.next_iterator
            yield page
            self._wait_for_room()
            self._stopped.wait(max(0.0, began + self._interval_s - time.monotonic()))

    def _open(self, lane: _Lane) -> str:
        """Get an iterator after everything buffered, once it is sure that nothing there has expired."""
        mark = lane.reached()
        confirm_same(self._stream, self._identity)
        confirm_kept(self._stream, lane.shard_id, mark, self._retention_ms)
        return self._stream.iterator(lane.shard_id, mark)

    def _keep(self, lane: _Lane, page: Page) -> None:
        with self._changed:
            lane.records.extend(page.records)
            self._bytes += sum(len(record.data) for record in page.records)
            lane.iterator = page.next_iterator
            lane.ended = page.next_iterator is None
            # Under steady writes no page is empty: a record that arrived since this feed began is as good.
            if page.behind_ms == 0 and (not page.records or page.records[-1].arrival_ms >= self._began_ms):
                lane.tip_ms = lane.asked_ms
            self._news = True
            self._changed.notify_all()

    def _wait_for_room(self) -> None:
        with self._changed:
            while self._bytes > BUFFER_BYTES and not self._stopped.is_set():
                self._changed.wait(1.0)


def confirm_same(stream: Stream, identity: Identity) -> None:
    """Raise SourceGoneError when the stream was deleted and made again under its name."""
    if stream.summary().identity != identity:
        raise stream.gone("it was made again; what the old one held and this job had not read is lost")


def confirm_kept(stream: Stream, shard_id: str, mark: Mark, retention_ms: int) -> None:
    """Raise SourceGoneError when records after a mark may have expired unread.

    Kinesis answers a position that has expired with the oldest record it still has, without a word. Whatever is unread
    arrived after `seen_ms` and is kept for the retention; past that, only finding the mark's own record proves that
    nothing after it is gone.
    """
    now_ms = _now_ms()
    if now_ms - mark.seen_ms < retention_ms:
        return
    if mark.sequence:
        page = stream.fetch(shard_id, stream.iterator(shard_id, mark, including=True), limit=1)
        if page.records and page.records[0].sequence == mark.sequence:
            return
    days = (now_ms - mark.seen_ms) / 86_400_000
    raise stream.gone(
        f"{shard_id} was last read {days:.1f} days ago, longer than its retention of {retention_ms // 3_600_000} hours:"
        " what arrived first since then is lost"
    )


def _later(lane: _Lane, mark: Mark) -> list[RawRecord]:
    return lane.records[max(0, mark.count - lane.start.count) :]


def _within(records: list[RawRecord], limit: int) -> list[RawRecord]:
    """Cut records to a number and to `BATCH_BYTES`, but never to nothing."""
    size = 0
    for index, record in enumerate(records[:limit]):
        size += len(record.data)
        if size > BATCH_BYTES and index:
            return records[:index]
    return records[:limit]


def _after(mark: Mark, records: list[RawRecord]) -> Mark:
    if not records:
        return mark
    last = records[-1]
    return replace(
        mark, sequence=last.sequence, count=mark.count + len(records), seen_ms=max(mark.seen_ms, last.arrival_ms)
    )


def _now_ms() -> int:
    return int(time.time() * 1000)

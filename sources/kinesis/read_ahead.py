"""Reads ahead: one thread a shard, into a bounded buffer; on the driver for batches with an end, in a reader for a feed.

Kinesis has no call for the end of a shard, so a batch ends with what has been read by then. The records are kept until their
batch is committed and travel with it, so that each is fetched once: a shard allows 2 MiB and five calls a second to all its
readers together, and a second fetch on the executors would halve that.
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

from schemas.errors import PipelineError, UnavailableError
from sources.kinesis.client import InUseError, IteratorError, Page, Stream, ThrottledError
from sources.kinesis.fan_out import IN_USE_S, TAKEN_OVER_S, Consumer
from sources.kinesis.loss import confirm_kept, refuse_another
from sources.kinesis.offsets import Identity, Mark
from sources.kinesis.records import RawRecord

BUFFER_BYTES = 64 * 1024 * 1024
"""Bytes read ahead over all shards before the threads pause."""
PAGE_BYTES = 10 * 1024 * 1024
"""Most bytes of one GetRecords (Kinesis API reference)."""
BATCH_BYTES = 16 * 1024 * 1024
"""Bytes of one shard in one batch: they travel in the task's description."""
THROTTLED_PAUSE_S, AWAY_PAUSE_S = 5.0, 2.0
"""Longest pause between two calls while Kinesis throttles, or does not answer, in seconds."""
PASSING_S = 10.0
"""How long Kinesis may throttle a shard's reads, or refuse new iterators, before it counts as away, in seconds."""

logger = logging.getLogger(__name__)


@dataclass
class _ShardBuffer:
    """The records that were read ahead of one shard."""

    shard_id: str
    start: Mark
    """The mark the buffer begins after."""
    pause: float
    """Least time between two calls after the last answer or failure, in seconds."""
    records: list[RawRecord] = field(default_factory=list)
    asked_ms: int = 0
    """When the last page was requested, in milliseconds."""
    tip_ms: int = 0
    """When the shard last had no later record, in milliseconds; 0: never yet."""
    behind: bool = True
    """Whether the next page may be a large one."""
    ended: bool = False
    failure: PipelineError | None = None
    failing_since: float | None = None
    """Since when all calls have failed, by the monotonic clock."""
    away: str | None = None
    """The failure that lasts, in a sentence."""
    continuation: str = ""
    """Sequence number after which a subscription goes on, when that is further than the last record."""
    left: threading.Event = field(default_factory=threading.Event)
    """Set when the shard is no longer wanted."""

    def reached(self) -> Mark:
        """The mark after all buffered records; `seen_ms` of an idle shard's is when it last had no later record."""
        mark = _after(self.start, self.records)
        return replace(mark, seen_ms=max(mark.seen_ms, self.tip_ms))


class ReadAhead:
    """The buffers of all shards that a query reads. The threads that fill them and one that takes from them may call it."""

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

        Without an identity it is that of the first answer. With `drain`, a shard is read until it has no later record. With a
        consumer, records are pushed, and polled where there is no subscription.
        """
        self._stream = stream
        self._identity = identity
        self._retention_ms = 0
        self._interval_s = interval_s
        self._drain = drain
        self._buffers: dict[str, _ShardBuffer] = {}
        self._buffer_bytes = buffer_bytes
        self._consumer = consumer
        self._bytes = 0
        self._expected = 0
        self._began_ms = _now_ms()
        self._changed = threading.Condition()
        self._is_changed = False

    def follow(self, shard_id: str, mark: Mark) -> None:
        """Start reading a shard after a mark, unless it is being read already."""
        with self._changed:
            if shard_id in self._buffers or mark.closed:
                return
            buffer = self._buffers[shard_id] = _ShardBuffer(shard_id, mark, self._interval_s)
        threading.Thread(target=self._read, args=(buffer,), name=f"kinesis-{shard_id}", daemon=True).start()

    def leave(self, shard_id: str) -> None:
        """Read a shard no more and drop its buffer; its thread ends after its current call."""
        with self._changed:
            buffer = self._buffers.pop(shard_id, None)
            if buffer is not None:
                buffer.left.set()
                self._bytes -= _size(buffer.records)
                self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait until records or a failure have come since the last call, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_changed, seconds)
            self._is_changed = False

    def raise_failure(self) -> None:
        """Raise what stopped a shard's thread."""
        with self._changed:
            failures = [buffer.failure for buffer in self._buffers.values() if buffer.failure]
        if failures:
            raise failures[0]

    @property
    def away(self) -> str | None:
        """Which shard does not answer now, or has been throttled for long, in one sentence."""
        with self._changed:
            return next((buffer.away for buffer in self._buffers.values() if buffer.away), None)

    def take(self, shard_id: str, mark: Mark, limit: int, size: int = BATCH_BYTES) -> Mark:
        """The mark after the next buffered records: at most `limit` of them, within `size` bytes, at least one.

        The same mark when there are none.
        """
        with self._changed:
            buffer = self._buffers.get(shard_id)
            if buffer is None:
                return mark
            ahead = _within(_later(buffer, mark), limit, size)
            reached = _after(mark, ahead)
            if reached.count < buffer.reached().count:
                return reached
            if buffer.tip_ms:
                reached = replace(reached, seen_ms=max(reached.seen_ms, buffer.tip_ms))
            # The mark of an idle shard must not change: that would be a batch.
            return (
                replace(reached, closed=buffer.ended) if ahead or buffer.ended or self._is_stale(mark, buffer) else mark
            )

    def slice(self, shard_id: str, start: Mark, end: Mark) -> list[RawRecord] | None:
        """Return the records between two marks, or None when they are not all buffered."""
        with self._changed:
            buffer = self._buffers.get(shard_id)
            if buffer is None or buffer.start.count > start.count or buffer.reached().count < end.count:
                return None
            return _later(buffer, start)[: end.count - start.count]

    def forget(self, shard_id: str, mark: Mark) -> None:
        """Drop what lies before a mark: its batch is committed."""
        with self._changed:
            buffer = self._buffers.get(shard_id)
            if buffer is None:
                return
            done = buffer.records[: max(0, mark.count - buffer.start.count)]
            del buffer.records[: len(done)]
            buffer.start = _after(buffer.start, done)
            self._bytes -= _size(done)
            if mark.closed and not buffer.records:
                del self._buffers[shard_id]
            self._changed.notify_all()

    def drained(self, shard_id: str) -> bool:
        """Whether a shard has had no later record since this began."""
        with self._changed:
            buffer = self._buffers.get(shard_id)
            return buffer is not None and (buffer.ended or buffer.tip_ms > 0)

    def caught_up_ms(self, marks: Mapping[str, Mark]) -> dict[str, int]:
        """When each open shard last had no record after its mark, in milliseconds; 0: it may have some.

        0 too for a shard that has just ended: its children may have records.
        """
        with self._changed:
            buffers = {shard_id: self._buffers.get(shard_id) for shard_id, mark in marks.items() if not mark.closed}
            return {
                shard_id: buffer.tip_ms
                if buffer and not buffer.ended and buffer.reached().count == marks[shard_id].count
                else 0
                for shard_id, buffer in buffers.items()
            }

    def stop(self) -> None:
        """Leave every shard."""
        with self._changed:
            shards = list(self._buffers)
        for shard_id in shards:
            self.leave(shard_id)

    def _is_stale(self, mark: Mark, buffer: _ShardBuffer) -> bool:
        """Whether an idle shard's mark needs a new `seen_ms`, eight times a retention."""
        return buffer.tip_ms - mark.seen_ms > self._retention_ms // 8

    def _read(self, buffer: _ShardBuffer) -> None:
        try:
            for page in self._pages(buffer):
                self._keep(buffer, page)
                if buffer.ended or (self._drain and buffer.tip_ms):
                    return
        except PipelineError as error:
            buffer.failure = error
        except Exception as error:  # noqa: BLE001 - raised by `raise_failure`
            buffer.failure = PipelineError(f"{buffer.shard_id}: {type(error).__name__} while reading ahead.")
        finally:
            with self._changed:
                self._is_changed = True
                self._changed.notify_all()

    def _pages(self, buffer: _ShardBuffer) -> Iterator[Page]:
        if self._consumer is None:
            yield from self._polled(buffer)
            return
        while not buffer.left.is_set():
            seconds = yield from self._pushed(buffer, self._consumer)
            yield from self._polled(buffer, seconds)

    def _pushed(self, buffer: _ShardBuffer, consumer: Consumer) -> Generator[Page, None, float]:
        """Yield the pages of one subscription; return how long to poll before the next, in seconds."""
        began, in_use_s = time.monotonic(), IN_USE_S
        try:
            self._confirm(buffer)
            for page, known_ms in consumer.pages(buffer.shard_id, buffer.reached(), buffer.continuation):
                buffer.failing_since, buffer.away, buffer.pause = None, None, self._interval_s
                buffer.asked_ms = max(buffer.asked_ms, known_ms)
                in_use_s = TAKEN_OVER_S
                yield page
                buffer.continuation = page.next_iterator or ""
                with self._changed:
                    while not buffer.left.is_set() and self._is_full(0):
                        self._changed.wait(1.0)
                if buffer.left.is_set():
                    break
        except InUseError:
            return in_use_s
        except UnavailableError as error:
            if not buffer.left.is_set() and buffer.away is None:
                logger.warning("kinesis: %s; the shard is polled meanwhile", error.message)
            return IN_USE_S
        return 0.0 if time.monotonic() - began > IN_USE_S else IN_USE_S

    def _polled(self, buffer: _ShardBuffer, seconds: float = math.inf) -> Iterator[Page]:
        """Fetch page after page, with longer pauses while Kinesis throttles or does not answer."""
        iterator: str | None = None
        until = time.monotonic() + seconds
        while not buffer.left.is_set() and time.monotonic() < until:
            began = time.monotonic()
            try:
                iterator = iterator or self._open(buffer)
                with self._room(buffer):
                    buffer.asked_ms = _now_ms()
                    page = self._stream.fetch(buffer.shard_id, iterator)
            except UnavailableError as error:
                iterator = None if isinstance(error, IteratorError) else iterator
                self._wait_out(buffer, error)
                continue
            buffer.failing_since, buffer.away, buffer.pause = None, None, self._interval_s
            iterator = page.next_iterator
            buffer.continuation = "" if page.records else buffer.continuation
            yield page
            buffer.left.wait(max(0.0, min(began + self._interval_s, until) - time.monotonic()))

    def _wait_out(self, buffer: _ShardBuffer, error: UnavailableError) -> None:
        """Pause after a failed call, longer each time, and log a failure that lasts."""
        if buffer.left.is_set():
            return
        buffer.behind = True  # many records may have come meanwhile
        throttled = isinstance(error, ThrottledError)
        passing = throttled or isinstance(error, IteratorError)
        now = time.monotonic()
        buffer.failing_since = buffer.failing_since or now
        if buffer.away is None and (not passing or now - buffer.failing_since > PASSING_S):
            buffer.away = error.message
            logger.warning("kinesis: %s; trying again until it passes", error.message)
        buffer.pause = min(max(buffer.pause, 0.1) * 2, THROTTLED_PAUSE_S if throttled else AWAY_PAUSE_S)
        buffer.left.wait(buffer.pause * random.uniform(0.5, 1))  # noqa: S311 - spreads the readers' calls

    def _open(self, buffer: _ShardBuffer) -> str:
        """Get an iterator after the last buffered record."""
        self._confirm(buffer)
        return self._stream.iterator(buffer.shard_id, buffer.reached())

    def _confirm(self, buffer: _ShardBuffer) -> None:
        """Raise SourceGoneError when it is another stream, or records after the buffered ones may have expired."""
        summary = self._stream.summary()
        with self._changed:
            self._identity = self._identity or summary.identity
            self._retention_ms = summary.retention_ms
        refuse_another(self._stream, summary, self._identity)
        confirm_kept(self._stream, buffer.shard_id, buffer.reached(), summary.retention_ms)

    def _keep(self, buffer: _ShardBuffer, page: Page) -> None:
        with self._changed:
            if buffer.left.is_set():
                return
            buffer.records.extend(page.records)
            self._bytes += _size(page.records)
            buffer.behind = page.behind_ms > 0
            buffer.ended = page.next_iterator is None
            # Under steady writes no page is empty: a record that arrived since this began proves the same.
            if page.behind_ms == 0 and (not page.records or page.records[-1].arrival_ms >= self._began_ms):
                buffer.tip_ms = buffer.asked_ms
            self._is_changed = True
            self._changed.notify_all()

    @contextmanager
    def _room(self, buffer: _ShardBuffer) -> Iterator[None]:
        """Wait until the buffers have room for a page, and reserve it: all shards may be far behind at once."""
        with self._changed:
            page = PAGE_BYTES if buffer.behind else 0
            while not buffer.left.is_set() and self._is_full(page):
                self._changed.wait(1.0)
                page = PAGE_BYTES  # many records may have come meanwhile
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
        used = self._bytes + self._expected
        return used > 0 and used + page > self._buffer_bytes


def _later(buffer: _ShardBuffer, mark: Mark) -> list[RawRecord]:
    return buffer.records[max(0, mark.count - buffer.start.count) :]


def _within(records: list[RawRecord], limit: int, most: int) -> list[RawRecord]:
    """The first records, up to a number and a size in bytes, but at least one."""
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

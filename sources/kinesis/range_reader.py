"""Fetches the records between two marks of a shard, on an executor, for a batch that a restart runs again."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace

from schemas.errors import UnavailableError
from sources.kinesis.client import IteratorError, Page, Stream
from sources.kinesis.offsets import Mark
from sources.kinesis.records import RawRecord

PATIENCE_S = 120.0
"""How long Kinesis may throttle or not answer before the task fails (Spark and the runner try it again), in seconds."""
_PAUSE_S = 0.2
"""Between two calls: five a second and shard are allowed."""

logger = logging.getLogger(__name__)


def read_exactly(stream: Stream, shard_id: str, start: Mark, end: Mark) -> Iterator[RawRecord]:
    """Yield the records after `start` up to and including `end`.

    Raises SourceGoneError when the shard no longer holds just those: some have expired, or it is another shard.
    """
    wanted = end.count - start.count
    count = 0
    for page in _pages(stream, shard_id, start):
        for record in page.records:
            count += 1
            yield record
            if record.sequence == end.sequence and count == wanted:
                return
            if count >= wanted or int(record.sequence) >= int(end.sequence):
                raise _changed(stream, shard_id, count, wanted)
        if page.next_iterator is None or (not page.records and page.behind_ms == 0):
            raise _changed(stream, shard_id, count, wanted)


def _pages(stream: Stream, shard_id: str, start: Mark) -> Iterator[Page]:
    """Fetch page after page, waiting out throttles and an endpoint that does not answer, for `PATIENCE_S` each time."""
    position = start
    iterator: str | None = None
    deadline = time.monotonic() + PATIENCE_S
    pause = _PAUSE_S
    while True:
        try:
            iterator = iterator or stream.iterator(shard_id, position)
            page = stream.fetch(shard_id, iterator)
        except UnavailableError as error:
            if time.monotonic() > deadline:
                raise
            if isinstance(error, IteratorError):
                iterator = None
            logger.warning("kinesis: %s; trying again", error.message)
            time.sleep(pause)
            pause = min(pause * 2, 5.0)
            continue
        deadline, pause = time.monotonic() + PATIENCE_S, _PAUSE_S
        iterator = page.next_iterator
        if page.records:
            position = replace(position, sequence=page.records[-1].sequence)
        yield page
        time.sleep(_PAUSE_S)


def _changed(stream: Stream, shard_id: str, count: int, wanted: int) -> Exception:
    return stream.gone(
        f"{shard_id} no longer holds the {wanted} records of the batch that was planned before the restart"
        f" ({count} found before the end); the missing ones have expired and are lost"
    )

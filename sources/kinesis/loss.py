"""Checks that a stream still has the records after a mark."""

from __future__ import annotations

import time

from sources.kinesis.client import Stream, Summary
from sources.kinesis.offsets import Identity, Mark


def confirm_same(stream: Stream, identity: Identity) -> None:
    """Raise SourceGoneError when the stream was deleted and made again under its name."""
    refuse_another(stream, stream.summary(), identity)


def refuse_another(stream: Stream, summary: Summary, identity: Identity) -> None:
    """Raise SourceGoneError when the marks belong to another stream."""
    if summary.identity.arn != identity.arn:
        raise stream.gone("the checkpoint was made from another stream, whose unread records this job would lose")
    if summary.identity != identity:
        raise stream.gone("it was made again; what the old one held and this job had not read is lost")


def confirm_kept(stream: Stream, shard_id: str, mark: Mark, retention_ms: int) -> None:
    """Raise SourceGoneError when records after a mark may have expired unread.

    For an expired position Kinesis returns the oldest record that it has, without an error. All unread records arrived after
    `seen_ms` and are kept for the retention; later, only the mark's own record proves that none after it has expired.
    """
    now_ms = int(time.time() * 1000)
    if now_ms - mark.seen_ms < retention_ms:
        return
    if mark.after:
        page = stream.fetch(shard_id, stream.iterator(shard_id, mark, including=True), limit=1)
        if page.records and page.records[0].sequence == mark.after:
            return
    days = (now_ms - mark.seen_ms) / 86_400_000
    raise stream.gone(
        f"{shard_id} was last read {days:.1f} days ago, longer than its retention of {retention_ms // 3_600_000} hours:"
        " what arrived first since then is lost"
    )

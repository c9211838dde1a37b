"""One total order for the changes of a row, comparable as plain bytes (I1).

A sequence is 104 lower-case hexadecimal digits: 4 of the epoch, 48 of the source's own log position, 52 of the stream
position (48 and, for a record taken out of an aggregated one, 4 more). The source position ranks first; a record
without one (a DMS full load) ranks below every record with one, and the stream position breaks the last tie.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence

SOURCE_DIGITS = 48
STREAM_DIGITS = 52
SEQUENCE_DIGITS = 4 + SOURCE_DIGITS + STREAM_DIGITS
NO_SOURCE_POSITION = "0" * SOURCE_DIGITS

_FIRST_COMMIT_US = -62_135_596_800_000_000
_LAST_COMMIT_US = 253_402_300_799_999_999
"""The years 1 to 9999: what every store and every reader of the lake can show."""

_DMS_POSTGRESQL = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})\.(\d+)\.([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


def sequence(epoch: int, source_position: str, stream_position: str) -> str:
    """Join the three parts; they are fixed-width already."""
    return f"{epoch:04x}{source_position}{stream_position}"


def postgresql_position(last_commit_lsn: int | None, lsn: int | None) -> str:
    """Rank by (last commit, row): row positions alone interleave between transactions.

    A missing last commit (snapshot, first change after a restart) means the row's own position, and the reverse.
    Raises ValueError when both are missing.
    """
    row = last_commit_lsn if lsn is None else lsn
    commit = row if last_commit_lsn is None else last_commit_lsn
    if commit is None or row is None:
        msg = "neither a commit position nor a row position"
        raise ValueError(msg)
    return position_of(commit, row, 0)


def position_of(first: int, second: int, third: int) -> str:
    """Join the three parts of a source position; raises ValueError for one that is negative or wider than 64 bits."""
    if (first | second | third) >> 64:  # of a negative number it is -1
        msg = "a part of the source position is not a number of 64 bits"
        raise ValueError(msg)
    return f"{first << 128 | second << 64 | third:048x}"


def dms_postgresql_position(stream_position: str) -> str:
    """Read DMS's `HHHHHHHH/HHHHHHHH.n.HHHHHHHH/HHHHHHHH` as (first LSN, second LSN, n).

    The middle number is not padded, so the text itself does not sort. Raises ValueError for any other form.
    """
    found = _DMS_POSTGRESQL.fullmatch(stream_position)
    if not found:
        msg = "stream-position is not PostgreSQL's HHHHHHHH/HHHHHHHH.n.HHHHHHHH/HHHHHHHH"
        raise ValueError(msg)
    high, low, count, high2, low2 = found.groups()
    return position_of(int(high.zfill(8) + low.zfill(8), 16), int(high2.zfill(8) + low2.zfill(8), 16), int(count))


def stream_position(position: str) -> str:
    """Widen a Kafka offset or a Kinesis sequence number (with `:N` inside an aggregate).

    Kinesis numbers have up to 129 digits on paper and 56 in practice; one that does not fit raises ValueError.
    """
    number, _, part = position.partition(":")
    if "-" in position:
        msg = "stream position is negative"
        raise ValueError(msg)
    text = f"{int(number):048x}{int(part):04x}" if part else f"{int(number):048x}0000"
    if len(text) != STREAM_DIGITS:
        msg = "stream position is wider than 192 bits"
        raise ValueError(msg)
    return text


def epoch_at(starts_us: Sequence[int], commit_time_us: int | None) -> int:
    """Count the epoch starts (sorted, microseconds) that are not after the commit: the same at every reader."""
    return bisect_right(starts_us, commit_time_us) if starts_us and commit_time_us is not None else 0


def is_a_commit_time(micros: int | None) -> bool:
    """Whether a commit time (microseconds since the epoch) is unknown, or one that can be shown everywhere."""
    return micros is None or _FIRST_COMMIT_US <= micros <= _LAST_COMMIT_US

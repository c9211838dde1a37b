"""One total order for the changes of a row, comparable as plain bytes (I1).

A sequence is 104 lower-case hexadecimal digits: 4 of the epoch, 48 of the source's own log position, 52 of the stream
position (48 and, for a record taken out of an aggregated one, 4 more). The source position ranks first; a record
without one (a DMS full load) ranks below every record with one, and the stream position breaks the last tie.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

SOURCE_DIGITS = 48
STREAM_DIGITS = 52
SEQUENCE_DIGITS = 4 + SOURCE_DIGITS + STREAM_DIGITS
NO_SOURCE_POSITION = "0" * SOURCE_DIGITS
BY_STREAM = f"{1:0{SOURCE_DIGITS}x}"
"""In place of a source position where the stream's own order ranks: above a full load, below every position."""

_FIRST_COMMIT_US = -62_135_596_800_000_000
_LAST_COMMIT_US = 253_402_300_799_999_999
"""The years 1 to 9999: what every store and every reader of the lake can show."""

_SURE_DIGITS = 57
"""Decimal digits that 192 bits always hold."""
_INT_OR_NONE = (int, type(None))
_MOST_SHOWN = 80
_UNSHOWN = re.compile(r"[^a9.,:;/_+\- ]")


class NoPositionError(ValueError):
    """The record has no position that can be ordered; the message says why, and quotes nothing but a connector's name."""


def sequence(epoch: int, source_position: str, stream_position: str) -> str:
    """Join the three parts; they are fixed-width already."""
    return f"{epoch:04x}{source_position}{stream_position}"


def position_of(first: int, second: int, third: int) -> str:
    """Join the three parts of a source position; raises ValueError for one that is negative or wider than 64 bits."""
    if (first | second | third) >> 64:  # of a negative number it is -1
        raise ValueError("a part of the source position is not a number of 64 bits")
    return f"{first << 128 | second << 64 | third:048x}"


def whole_number(value: Any) -> int | None:
    """Take a part of a position that is an integer or missing; raises NoPositionError for anything else."""
    if type(value) not in _INT_OR_NONE:  # true and false are integers to Python
        raise NoPositionError("a position is not a whole number")
    return value  # type: ignore[no-any-return] # its type was looked at


def shape(value: Any) -> str:
    """What a part of a position looks like, for an error: kinds of characters and no value (`binlog.000001` is `a.9`)."""
    if not isinstance(value, str):
        return "nothing" if value is None else f"of type {type(value).__name__}"
    text = re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", value[:_MOST_SHOWN]))
    return f"`{re.sub(_UNSHOWN, '?', text)}`, {len(value)} characters"


def stream_position(position: str) -> str:
    """Widen a Kafka offset or a Kinesis sequence number (with `:N` inside an aggregate).

    Kinesis numbers have up to 129 digits on paper and 56 in practice; one that does not fit raises ValueError.
    """
    if position.isdecimal() and len(position) <= _SURE_DIGITS:
        return f"{int(position):048x}0000"
    number, _, part = position.partition(":")
    if "-" in position:
        raise ValueError("stream position is negative")
    text = f"{int(number):048x}{int(part):04x}" if part else f"{int(number):048x}0000"
    if len(text) != STREAM_DIGITS:
        raise ValueError("stream position is wider than 192 bits")
    return text


def epoch_at(starts_us: Sequence[int], commit_time_us: int | None) -> int:
    """Count the epoch starts (sorted, microseconds) that are not after the commit: the same at every reader."""
    return bisect_right(starts_us, commit_time_us) if starts_us and commit_time_us is not None else 0


def before_epoch(epoch: int) -> str:
    """The sequence between an epoch and the one before it: no record has it."""
    return f"{epoch - 1:04x}{'f' * (SOURCE_DIGITS + STREAM_DIGITS)}"


def is_a_commit_time(micros: int | None) -> bool:
    """Whether a commit time (microseconds since the epoch) is unknown, or one that can be shown everywhere."""
    return micros is None or _FIRST_COMMIT_US <= micros <= _LAST_COMMIT_US

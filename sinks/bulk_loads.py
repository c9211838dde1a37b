"""When a load goes in bulk, without the store's vector index, and when it is over."""

from __future__ import annotations

import time
from dataclasses import dataclass

from schemas.errors import UnavailableError
from sinks.versions import BulkLoad

LEAST_INTO_EMPTY, LEAST = 1_000, 10_000
"""New vectors from which on it is worth building the index at the end, of an empty store and of another."""
SHARE = 4
"""An index is built anew for a load of a quarter of what it has or more: one insert costs about five times its part of a build
(measured, docs/figures.md)."""
MOST_COMPARED_BYTES = 1 << 30
"""Vectors that readers compare one by one while there is no index: 1 GiB is scanned in about a second."""
ROOM = 2
"""A job expects no more than that part of it: the streams may bring more, and writes go on while the index is built."""
MOST_AGAIN = 10
"""How many times what a backlog has brought the rest of it may be expected to bring: an index is dropped on evidence."""
RENEW_US, ABANDONED_US = 10_000_000, 60_000_000
"""How often a command says that it is at work, and when another process takes its load for abandoned."""

SETTLED_SECONDS = 5.0
"""How long a store is watched before its load counts as over: a snapshot reaches the stream in bursts."""
_STEADY, _STEADY_SHARE = 100.0, 0.002
"""Vectors a second, and the share of all of them, that an index takes one by one: a load that brings no more is over."""
_LEAST_SHARE, _LEAST_SECONDS = 0.02, 90.0
"""The share from which on the rest of the time can be estimated, and the shortest rest that is shown."""


@dataclass(frozen=True, slots=True)
class Build:
    """How far the vector index is built."""

    done: int
    total: int
    """Vectors."""
    seconds: float = 0.0
    """Since it began."""


@dataclass(frozen=True, slots=True)
class Look:
    """The number of vectors at a time (monotonic, in seconds)."""

    at: float
    vectors: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """How far a store that has not caught up is, at one look."""

    documents: int
    chunks: int
    """In the store."""
    read: int
    """Records that were written to it, counted from any point: the sum of its positions."""
    left: int | None
    """Records that the streams hold after them; None where one does not say."""


def is_worth(present: int, new: int, most_compared: int) -> bool:
    """Whether to load `new` vectors into a store of `present` ones without its index.

    A store that has vectors is searched meanwhile, so all of them must be few enough to be compared one by one.
    """
    if not present:
        return not new or new >= LEAST_INTO_EMPTY
    return new >= max(LEAST, present / SHARE) and present + new <= most_compared


def to_come(first: Backlog, now: Backlog) -> int:
    """Estimate the new vectors that the rest of a backlog brings, by what came since the first look; 0 where only known rows did.

    As many for each record as until now, and at most `MOST_AGAIN` times as many in all. Where it is not known how much is left,
    or no record counts as written before a whole batch is, as many again.
    """
    documents, chunks, read = now.documents - first.documents, now.chunks - first.chunks, now.read - first.read
    if documents <= 0 or chunks <= 0:
        return 0
    if now.left is None:
        return chunks
    written = max(read, documents)  # positions follow the rows that are written
    left = now.left - (written - read)
    return max(0, min(left * chunks // written, chunks * (MOST_AGAIN if read else 1)))


def is_outgrown(load: BulkLoad, present: int, most_compared: int) -> bool:
    """Whether the streams have brought so much more than was expected that the index is needed before the store has caught up."""
    if load.expected is None or load.renewed_us is not None:
        return False
    return present > load.expected and ROOM * present > most_compared


def is_abandoned(load: BulkLoad, now_us: int) -> bool:
    """Whether nobody works on a load that a command began."""
    return load.renewed_us is not None and now_us - load.renewed_us > ABANDONED_US


def is_settled(before: Look, now: Look) -> bool:
    """Whether so few vectors come that an index takes them one by one."""
    seconds = now.at - before.at
    if seconds < SETTLED_SECONDS:
        return False
    return (now.vectors - before.vectors) / seconds <= max(_STEADY, _STEADY_SHARE * now.vectors)


def filling(load: BulkLoad | None, present: int, build: Build | None) -> str:
    """A sentence about a load: which part is done, and how long the rest may take."""
    if build is not None:
        return f"building the vector index, {_part(build.done, build.total, build.seconds)}"
    if load is None or not load.expected:
        return f"filling, {present} vectors so far"
    return f"filling, {_part(present, load.expected, time.time() - load.since_us / 1_000_000)}"


def still_filling(sink: str, progress: str) -> UnavailableError:
    """The refusal of a search in a load of more vectors than are compared one by one; `progress` is what `filling` says."""
    return UnavailableError(
        f"sink {sink}: {progress}",
        condition="STORE_FILLING",
        hint="its vectors are too many to be compared one by one; searches answer once the vector index is built",
    )


def _part(done: int, total: int, seconds: float) -> str:
    share = min(0.99, done / max(1, total))
    if share < _LEAST_SHARE:
        return f"{100 * share:.0f} %"
    left = seconds * (1 - share) / share
    return f"{100 * share:.0f} %, about {left / 60:.0f} min left" if left >= _LEAST_SECONDS else f"{100 * share:.0f} %"

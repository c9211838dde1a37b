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
HEADROOM = 2
"""A job plans a load of one in so many of the vectors that readers compare: its streams may bring more than was expected, and
writes go on while the index is built."""
MOST_GROWTH = 10
"""The rest of a backlog is expected to bring at most so many times the vectors that came of it: they are the evidence."""
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
class Progress:
    """How far a store that is behind its streams has come, at one time."""

    documents: int
    chunks: int
    """In the store."""
    read: int
    """The sum of its positions in the streams: only differences mean something."""
    left: int | None
    """Records that the streams hold after these positions; None where one does not say."""


def is_worth(present: int, new: int, most_compared: int) -> bool:
    """Whether to load `new` vectors into a store of `present` ones without its index.

    A store that has vectors is searched meanwhile, so all of them must be few enough to be compared one by one.
    """
    if not present:
        return not new or new >= LEAST_INTO_EMPTY
    return new >= max(LEAST, present / SHARE) and present + new <= most_compared


def expected_vectors(first: Progress, now: Progress) -> int:
    """Estimate the new vectors that the rest of a backlog brings, by those that came in between; 0 where no document was new.

    As many for each record as in between, and at most `MOST_GROWTH` times as many in all. As many again where the streams do
    not say what is left, and in micro-batches, whose positions stand until a whole batch is written.
    """
    documents, chunks, read = now.documents - first.documents, now.chunks - first.chunks, now.read - first.read
    if documents <= 0 or chunks <= 0:
        return 0
    if now.left is None:
        return chunks
    written = max(read, documents)  # positions follow the rows that are written
    left = now.left - (written - read)
    return max(0, min(left * chunks // written, chunks * (MOST_GROWTH if read else 1)))


def is_outgrown(load: BulkLoad, present: int, most_compared: int) -> bool:
    """Whether the streams have brought so much more than was expected that the index is needed before the store has caught up."""
    if load.expected is None or load.renewed_us is not None:
        return False
    return present > load.expected and HEADROOM * present > most_compared


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

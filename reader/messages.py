"""What a task and its reader say to each other: plain dataclasses, pickled over a connection that both have authenticated.

A partition is written `stream/partition`, as in `sources.feeds`; a position is JSON. Times are microseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from embeddings.protocol import EmbeddingCounts

if TYPE_CHECKING:
    from embeddings import EmbeddingConfig
    from indexing.result import IndexResult
    from sinks import SinkConfig
    from transforms.context import DecodeContext
    from transforms.documents.planning import DocumentSpec

type Partition = str
type Position = Any
type StorePositions = Mapping[str, Mapping[Partition, Position]]
"""By store, by partition: up to where all is written, and where reading goes on."""


@dataclass(frozen=True)
class ReaderSettings:
    """All that a reader is configured by. It holds secrets: it travels in a task's closure and over the reader's stdin."""

    source: Any
    """The configuration of a Kafka or Kinesis source."""
    context: DecodeContext
    specs: Mapping[str, DocumentSpec]
    sinks: tuple[SinkConfig, ...]
    embedding: EmbeddingConfig
    checkpoint: str = ""
    """The job's folder: it is named in hints, nothing is read or written there."""
    bind: str = ""
    """The address at which a reader listens, without a port; empty: the address of the executor that starts it."""
    orphan_seconds: float = 30.0
    """A reader that no task asked for so long ends; longer than `channel.ANSWER_SECONDS`, for which a tick waits for another."""


@dataclass(frozen=True)
class Instruction:
    """What a reader is to read from now on; a task brings it and gets a `Harvest`.

    Repeating an instruction changes nothing. A partition that is followed already goes on from where the reader is; a new
    one is followed from its positions, one that is missing is left. A store that is missing is no longer written.
    """

    epoch: str
    """Names one start of the query. A reader that hears another one begins anew from the instruction's positions."""
    batch: int
    """Counts up within an epoch. A higher one acknowledges what was answered before; a lower one gets empty results."""
    part: int
    """Which of the query's readers is meant."""
    positions: StorePositions
    behind: tuple[str, ...] = ()
    """Stores that lag: each reads with a feed of its own until it has caught up with the others."""
    borrowing: tuple[str, ...] = ()
    """Stores that lack vectors which others hold: they are filled from the lake as well."""
    address: str = ""
    """`host:port` of the reader that answered for this part last; empty: none did."""


@dataclass(frozen=True)
class Stop:
    """Ends a reader at once; the answer is None."""


@dataclass
class Harvest:
    """How far a reader has come, and what became of records since the last acknowledged harvest.

    Positions and results belong together: all that lies before a position is written to that store, and the results
    tell of it now or have told of it in an acknowledged harvest.
    """

    address: str
    """`host:port` of the reader."""
    positions: dict[str, dict[Partition, Position]]
    behind: tuple[str, ...]
    as_of_us: dict[str, dict[Partition, int]]
    """By store and partition: up to when all commits are written; 0 where nothing is known yet."""
    closed: bool
    """Whether a Kinesis shard has ended for some store: its children may be read."""
    gaps: dict[str, dict[Partition, tuple[Position, Position]]]
    """By store: what the stream no longer held when the store needed it, from the first position up to the second.

    The second is None of a shard that no other store reads any more: all that it held after the first is lost.
    """
    away: dict[str, str]
    """What does not answer now (`source NAME`, `sink NAME`, `embedding`), and a sentence about it."""
    result: IndexResult
    asked: EmbeddingCounts = field(default_factory=EmbeddingCounts)
    """What was asked of the models for it."""


class ReaderFailedError(Exception):
    """The reader died of an unexpected exception, which is named by type and place alone: its message may quote a row."""

"""The messages between a task and its reader: plain dataclasses, pickled over a connection that both have authenticated.

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
type PositionsByStore = Mapping[str, Mapping[Partition, Position]]
"""By store, by partition: all before these is written, and reading goes on there."""


@dataclass(frozen=True)
class ReaderSettings:
    """A reader's configuration, secrets included: it travels in a task's closure and over the reader's stdin."""

    source: Any
    """The configuration of a Kafka or Kinesis source."""
    context: DecodeContext
    specs: Mapping[str, DocumentSpec]
    sinks: tuple[SinkConfig, ...]
    embedding: EmbeddingConfig
    checkpoint: str = ""
    """The job's folder, for hints alone: nothing is read or written there."""
    bind: str = ""
    """The address at which a reader listens, without a port; empty: the address of the executor that starts it."""
    orphan_seconds: float = 30.0
    """A reader that no task asked for so long ends; longer than `channel.ANSWER_SECONDS`, for which a tick waits for another."""


@dataclass(frozen=True)
class Instruction:
    """The partitions and stores of a reader from now on; the answer is a `Harvest`.

    Repeating an instruction changes nothing. A partition that is followed already goes on from where the reader is; a new
    one is followed from its positions, one that is missing is left. A store that is missing is no longer written.
    """

    epoch: str
    """Names one start of the query. With another epoch a reader begins anew, at the instruction's positions."""
    batch: int
    """Counts up within an epoch. A higher one acknowledges the last harvest; a lower one gets empty results."""
    part: int
    """The number of the reader within its query."""
    positions: PositionsByStore
    behind: tuple[str, ...] = ()
    """Stores that lag: each has a feed of its own until it has caught up with the others."""
    use_peers: tuple[str, ...] = ()
    """Stores with a backfill: they take vectors from the others before the model is asked."""
    address: str = ""
    """`host:port` of the reader that last answered for this part; empty: none has."""


@dataclass(frozen=True)
class Stop:
    """Ends a reader at once; the answer is None."""


@dataclass
class Harvest:
    """The positions of a reader, and the results since the last acknowledged harvest.

    All before a position is written to that store, and its results are in this harvest or in an acknowledged one.
    """

    address: str
    """`host:port` of the reader."""
    positions: dict[str, dict[Partition, Position]]
    behind: tuple[str, ...]
    as_of_us: dict[str, dict[Partition, int]]
    """By store and partition: up to when all commits are written; 0 where nothing is known yet."""
    closed: bool
    """Whether some store has read a Kinesis shard to its end: the children may be read."""
    gaps: dict[str, dict[Partition, tuple[Position, Position]]]
    """By store: the records that the stream had lost when the store needed them, from the first position to the second.

    The second is None for a shard that no other store reads any more: all its records after the first are lost.
    """
    away: dict[str, str]
    """By part that does not answer now (`source NAME`, `sink NAME`, `embedding`): a sentence about it."""
    result: IndexResult
    model_counts: EmbeddingCounts = field(default_factory=EmbeddingCounts)
    """The requests to the models for these results."""


class ReaderFailedError(Exception):
    """The reader ended by an unexpected exception, named by type and place alone: its message may quote a row."""

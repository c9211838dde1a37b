"""Whether the lake holds whatever `index_documents` may have written into the stores by some moment.

Index and landing read each source by queries of their own, so a row may be in a store before its record is in the lake. By
offsets it can be told which: where index is not running, all that it will not read again lies before its last commit;
where it may be running, also in another driver or between two commits, all that it read lies before the source's end.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from glue_jobs.continuous import store_positions
from glue_jobs.status.record import read_all
from glue_jobs.storage import files
from sources import KinesisSourceConfig, positions
from sources.kinesis.offsets import Mark

if TYPE_CHECKING:
    from collections.abc import Iterable

    from glue_jobs.config.pipeline import PipelineConfig
    from sources import SourceConfig
    from sources.positions import Positions


@dataclass(frozen=True)
class Reading:
    """How far a source may have been read into the stores, and the checkpoints of the queries that read it."""

    source: SourceConfig
    checkpoint: str
    bound: Positions

    @property
    def name(self) -> str:
        """The source, and the tables where it is read for some alone."""
        _, some, tables = self.checkpoint.rpartition("/tables/")
        return f"{self.source.name} (--tables {tables.replace('+', ',')})" if some else self.source.name

    @property
    def is_landed(self) -> bool:
        """Whether landing has committed all of it."""
        landed = committed(self.source, f"{self.checkpoint}/land_{self.source.name}") or {}
        return not positions.behind(self.source, landed, self.bound)


def readings(config: PipelineConfig) -> list[Reading]:
    """What index may have read by now, of every source, by the pipeline itself and by runs of some of its tables.

    Raises PipelineError when a source that index may be reading does not answer.
    """
    main = config.checkpoint.rstrip("/")
    readings = [_reading(source, main) for source in config.sources]
    for name in files.folders(f"{main}/tables"):
        place = f"{main}/tables/{name}"
        queries = {record.query for record in read_all(place)}
        readings += [_reading(source, place) for source in config.sources if f"index_{source.name}" in queries]
    return readings


def unlanded(read: Iterable[Reading]) -> list[str]:
    """The names of those readings of which landing has not committed all."""
    return sorted({reading.name for reading in read if not reading.is_landed})


def committed(source: SourceConfig, checkpoint: str) -> Positions | None:
    """How far a query has read a source by the last batch that it committed; None before the first.

    It reads nothing before that again, and everything after it.
    """
    offset = committed_offset(checkpoint)
    return None if offset is None else positions.of_offset(source, offset)


def committed_offset(checkpoint: str) -> dict[str, Any] | None:
    """The offset that Spark keeps of the last batch that a query committed; None before the first."""
    done = [int(name) for name in files.names(f"{checkpoint}/commits") if name.isdigit()]
    return _offset_in(f"{checkpoint}/offsets/{max(done)}") if done else None


def first_offset(source: SourceConfig, checkpoint: str) -> dict[str, Any] | None:
    """The offset at which a query began that has committed nothing; None before it had planned a batch.

    Spark keeps it for Kafka. A shard of Kinesis began where the end of the first batch says that it did.
    """
    if not isinstance(source, KinesisSourceConfig):
        return _offset_in(f"{checkpoint}/sources/0/0")
    planned = _offset_in(f"{checkpoint}/offsets/0")
    if planned is not None:
        planned["shards"] = {shard: asdict(Mark(mark["origin"])) for shard, mark in planned["shards"].items()}
    return planned


def _offset_in(location: str) -> dict[str, Any] | None:
    """The last line of a file of Spark's: a version stands before it, and in newer ones metadata."""
    text = files.read(location)
    return None if text is None else dict(json.loads(text.strip().rpartition("\n")[2]))


def _reading(source: SourceConfig, checkpoint: str) -> Reading:
    query = f"index_{source.name}"
    stored = store_positions.read(f"{checkpoint}/{query}")
    record = next((candidate for candidate in read_all(checkpoint) if candidate.query == query), None)
    # Readers write on until they hear that they should stop: they have read more than they have told.
    stopped = record is not None and not record.running and not (stored is not None and stored.readers)
    bound = committed(source, f"{checkpoint}/{query}") if stopped else None
    if bound is None:
        bound = positions.ends(source, committed(source, f"{checkpoint}/land_{source.name}") or {})
    return Reading(source, checkpoint, bound)

"""Whether the lake has every record that `index_documents` may have written into the stores.

Index and landing read each source by queries of their own, so a row may be in a store before its record is in the lake. An
upper bound of what index has read is its last commit while it is stopped, and the source's end while it may be running, also
in another driver or between two commits.
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
    """The furthest positions of a source that index may have read, and the checkpoint of its queries."""

    source: SourceConfig
    checkpoint: str
    bound: Positions

    @property
    def name(self) -> str:
        """The source's name, with the tables of a run of some tables."""
        _, only_tables, tables = self.checkpoint.rpartition("/tables/")
        return f"{self.source.name} (--tables {tables.replace('+', ',')})" if only_tables else self.source.name

    @property
    def is_landed(self) -> bool:
        """Whether landing has committed all of it."""
        landed = committed(self.source, f"{self.checkpoint}/land_{self.source.name}") or {}
        return not positions.behind(self.source, landed, self.bound)


def readings(config: PipelineConfig) -> list[Reading]:
    """The readings of every source by the pipeline and by runs of some of its tables.

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
    """The names of the readings that landing has not fully committed."""
    return sorted({reading.name for reading in read if not reading.is_landed})


def committed(source: SourceConfig, checkpoint: str) -> Positions | None:
    """The positions after a query's last committed batch, where it resumes; None before the first."""
    offset = committed_offset(checkpoint)
    return None if offset is None else positions.of_offset(source, offset)


def committed_offset(checkpoint: str) -> dict[str, Any] | None:
    """The end offset of a query's last committed batch, as Spark stores it; None before the first."""
    done = [int(name) for name in files.names(f"{checkpoint}/commits") if name.isdigit()]
    return _offset_in(f"{checkpoint}/offsets/{max(done)}") if done else None


def first_offset(source: SourceConfig, checkpoint: str) -> dict[str, Any] | None:
    """The start offset of a query that has committed nothing; None before it planned a batch.

    Spark stores it for Kafka. For Kinesis the end offset of the first batch names each shard's origin.
    """
    if not isinstance(source, KinesisSourceConfig):
        return _offset_in(f"{checkpoint}/sources/0/0")
    planned = _offset_in(f"{checkpoint}/offsets/0")
    if planned is not None:
        planned["shards"] = {shard: asdict(Mark(mark["origin"])) for shard, mark in planned["shards"].items()}
    return planned


def _offset_in(location: str) -> dict[str, Any] | None:
    """The last line of an offset file of Spark's, after its version and metadata."""
    text = files.read(location)
    return None if text is None else dict(json.loads(text.strip().rpartition("\n")[2]))


def _reading(source: SourceConfig, checkpoint: str) -> Reading:
    query = f"index_{source.name}"
    stored = store_positions.read(f"{checkpoint}/{query}")
    record = next((candidate for candidate in read_all(checkpoint) if candidate.query == query), None)
    # Readers write on until they receive the stop, so they may be ahead of their stored positions.
    stopped = record is not None and not record.running and not (stored is not None and stored.readers)
    bound = committed(source, f"{checkpoint}/{query}") if stopped else None
    if bound is None:
        bound = positions.ends(source, committed(source, f"{checkpoint}/land_{source.name}") or {})
    return Reading(source, checkpoint, bound)

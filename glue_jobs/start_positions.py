"""Where `index_documents` goes on with a source: readers after micro-batches, micro-batches after readers.

Micro-batches keep how far they came in Spark's checkpoint, readers in `positions.json` beside it (`glue_jobs.store_positions`).
What was read since the last of either is read again, and changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, assert_never

from glue_jobs import store_positions
from glue_jobs.landed import committed_offset, first_offset
from glue_jobs.runtime import files
from glue_jobs.store_positions import StorePositions, earliest
from schemas.errors import StoppedError
from sources import positions
from sources.feeds import Reading
from sources.files import FilesSourceConfig
from sources.identity import FILE_NAME
from sources.kafka import KafkaSourceConfig
from sources.kinesis import KinesisSourceConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sources import SourceConfig
    from sources.feeds import Partition, Position, Positions

_OF_SPARK = ("commits", "offsets", "sources", "state")
"""Folders of a query's checkpoint (Structured Streaming Programming Guide, "Recovering from Failures with Checkpointing")."""


def for_readers(source: SourceConfig, checkpoint: str, stores: Collection[str]) -> tuple[Reading, tuple[str, ...]]:
    """Where readers begin with each store, and which stores are behind; a store has no positions if nothing was read yet.

    A store that is new begins where the furthest back of the others stands.
    """
    known = store_positions.read(checkpoint)
    if known is None or not known.readers:
        identity, base = _of_micro_batches(source, checkpoint)
        lagging = {store: at for store, at in known.stores.items() if store in stores} if known is not None else {}
        return Reading(identity, {store: dict(lagging.get(store, base)) for store in stores}), tuple(sorted(lagging))
    there = {store: dict(known.stores[store]) for store in stores if store in known.stores}
    base = earliest(there.values() or known.stores.values())
    reading = Reading(known.identity, {store: there.get(store, dict(base)) for store in stores})
    return reading, tuple(store for store in known.behind if store in there)


def for_micro_batches(source: SourceConfig, checkpoint: str) -> Positions | None:
    """Where a query in micro-batches begins that has no checkpoint of Spark's; one that readers left has none after this.

    None: where Spark's checkpoint or the configuration says. Asked again it says the same, until `begun`.
    """
    known = store_positions.read(checkpoint)
    if known is None or not known.readers:
        return None
    for folder in _OF_SPARK:
        files.remove_folder(f"{checkpoint.rstrip('/')}/{folder}")
    if isinstance(source, KafkaSourceConfig):
        files.write(f"{checkpoint.rstrip('/')}/{FILE_NAME}", json.dumps(known.identity, sort_keys=True))
    return earliest(known.stores.values())


def begun(checkpoint: str) -> None:
    """Take it that Spark has written down where the query's first batch begins."""
    known = store_positions.read(checkpoint)
    if known is not None and known.readers:
        store_positions.write(checkpoint, StorePositions(readers=False))


def numbers(places: Positions) -> dict[Partition, int]:
    """Positions as numbers that can be compared."""
    return {partition: positions.at(position) for partition, position in places.items()}


def has_begun(checkpoint: str) -> bool:
    """Whether anything was ever read by the query of a checkpoint."""
    return bool(files.names(f"{checkpoint.rstrip('/')}/offsets")) or store_positions.read(checkpoint) is not None


def _of_micro_batches(source: SourceConfig, checkpoint: str) -> tuple[Any, Mapping[Partition, Position]]:
    """The identity and the positions that a query in micro-batches, or in real-time mode before readers, has left."""
    offset = committed_offset(checkpoint) or first_offset(source, checkpoint)
    match source:
        case KafkaSourceConfig():
            text = files.read(f"{checkpoint.rstrip('/')}/{FILE_NAME}")
            identity = json.loads(text) if text is not None and offset is not None else None
        case KinesisSourceConfig():
            identity = [offset["arn"], offset["created_ms"]] if offset is not None else None
        case FilesSourceConfig():
            raise StoppedError(
                f"source {source.name!r} is read in micro-batches alone.", condition="SOURCE_HAS_NO_READER"
            )
        case _:
            assert_never(source)
    return identity, ({} if offset is None else positions.positions_in(source, offset))

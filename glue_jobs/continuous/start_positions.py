"""The start positions of `index_documents` in a source: of readers after micro-batches, of micro-batches after readers.

Micro-batches keep their positions in Spark's checkpoint, readers in `positions.json` beside it (`store_positions.py`).
Records after the last position of either are read again, and change nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, assert_never

from glue_jobs.continuous import store_positions
from glue_jobs.continuous.backfills import Backfills
from glue_jobs.continuous.gaps import without_gaps
from glue_jobs.continuous.store_positions import ByStore, StorePositions, earliest, latest
from glue_jobs.status.landed import committed_offset, first_offset
from glue_jobs.storage import files
from sources import SourceConfig, positions
from sources.feeds import Partition, Position, Positions, SourcePositions
from sources.files.config import FilesSourceConfig
from sources.kafka.config import KafkaSourceConfig
from sources.kafka.topic_identity import FILE_NAME
from sources.kinesis.config import KinesisSourceConfig
from sources.retained import holds

_LOG = logging.getLogger(__name__)
_OF_SPARK = ("commits", "offsets", "sources", "state")
"""Folders of a query's checkpoint (Structured Streaming Programming Guide, "Recovering from Failures with Checkpointing")."""


def for_readers(
    source: SourceConfig, checkpoint: str, stores: Collection[str]
) -> tuple[SourcePositions, tuple[str, ...]]:
    """The positions at which readers begin with each store, none if nothing was read yet; and the stores that are behind.

    A new store begins at the earliest position of the others.
    """
    stored = store_positions.read(checkpoint)
    if stored is None or not stored.readers:
        identity, base = _of_micro_batches(source, checkpoint)
        lagging = {store: at for store, at in stored.stores.items() if store in stores} if stored is not None else {}
        return SourcePositions(identity, {store: dict(lagging.get(store, base)) for store in stores}), tuple(
            sorted(lagging)
        )
    by_store = {store: dict(stored.stores[store]) for store in stores if store in stored.stores}
    base = earliest(by_store.values() or stored.stores.values())
    reading = SourcePositions(stored.identity, {store: by_store.get(store, dict(base)) for store in stores})
    return reading, tuple(store for store in stored.behind if store in by_store)


def past_gaps(source: SourceConfig, stores: ByStore, backfills: Backfills) -> dict[str, dict[Partition, Position]]:
    """Move stores past records that the stream has lost to them alone, after those are noted as backfills.

    Raises UnavailableError when the source has to be asked and does not answer.
    """
    moved, gaps = without_gaps(stores, partial(holds, source))
    for store, gap in gaps.items():
        backfills.add(store, source.name, gap)
        _LOG.warning(
            "the stream has lost records that a store lacks", extra={"context": {"store": store, "source": source.name}}
        )
    return moved


class BatchStart(NamedTuple):
    """The start of a query in micro-batches."""

    starts: Positions | None = None
    """Its positions where Spark has no checkpoint; None: it begins by that, or by the configuration."""
    behind: frozenset[str] = frozenset()
    """Stores that it does not write: they are away, and keep positions of their own."""
    lacking: frozenset[str] = frozenset()
    """Stores that it writes and that lack records of another one."""


def for_micro_batches(
    source: SourceConfig, checkpoint: str, stores: Collection[str], away: Collection[str], backfills: Backfills
) -> BatchStart:
    """The start after readers, or with stores that were away and answer again: their earliest positions.

    Records that the stream has lost to one of them alone become a backfill. For a query that begins at positions Spark's
    checkpoint is removed; the result is the same when this is called again, until `note_begin`.
    """
    stored = store_positions.read(checkpoint)
    behind = frozenset(away) & frozenset(stores) if not set(stores) <= set(away) else frozenset()
    lagging = stored.stores.keys() & set(stores) if stored is not None else set()
    if stored is None or (not stored.readers and lagging <= behind):
        return BatchStart(behind=frozenset(lagging))
    reading, _ = for_readers(source, checkpoint, stores)
    written = {store: at for store, at in reading.stores.items() if store not in behind}
    written = past_gaps(source, written, backfills)
    continued = StorePositions(readers=True, identity=reading.identity, stores={**reading.stores, **written})
    store_positions.write(checkpoint, continued)
    for folder in _OF_SPARK:
        files.remove_folder(f"{checkpoint.rstrip('/')}/{folder}")
    if isinstance(source, KafkaSourceConfig):
        files.write(f"{checkpoint.rstrip('/')}/{FILE_NAME}", json.dumps(continued.identity, sort_keys=True))
    furthest = positions.as_numbers(latest(written.values()))
    lacking = frozenset(store for store, at in written.items() if positions.as_numbers(at) != furthest)
    return BatchStart(earliest(written.values()), behind, lacking)


def note_begin(checkpoint: str, behind: Collection[str]) -> None:
    """Note that Spark's checkpoint has the start of the query's first batch; stores that are behind keep their own."""
    stored = store_positions.read(checkpoint)
    if stored is not None and stored.readers:
        lagging = {store: at for store, at in stored.stores.items() if store in behind}
        store_positions.write(checkpoint, StorePositions(readers=False, stores=lagging))


def note_missed(source: SourceConfig, checkpoint: str, stores: Collection[str], starts: Positions | None) -> bool:
    """Note, before a batch is committed, that stores go on later at its start.

    That is the end of the batch before, or else the start of the query (`starts`); False where neither is known.
    """
    offset = committed_offset(checkpoint)
    position = starts if offset is None else positions.positions_in(source, offset)
    if position is None:
        return False
    stored = store_positions.read(checkpoint) or StorePositions(readers=False)
    store_positions.write(checkpoint, replace(stored, stores={**dict.fromkeys(stores, position), **stored.stores}))
    return True


def has_begun(checkpoint: str) -> bool:
    """Whether the query of a checkpoint has ever read anything."""
    return bool(files.names(f"{checkpoint.rstrip('/')}/offsets")) or store_positions.read(checkpoint) is not None


def is_interrupted(checkpoint: str) -> bool:
    """Whether the next batch of a query in micro-batches was begun before: stores may have parts of it."""
    planned, done = (files.names(f"{checkpoint.rstrip('/')}/{folder}") for folder in ("offsets", "commits"))
    return _last(planned) > _last(done)


def _last(names: Collection[str]) -> int:
    return max((int(name) for name in names if name.isdigit()), default=-1)


def _of_micro_batches(source: SourceConfig, checkpoint: str) -> tuple[Any, Mapping[Partition, Position]]:
    """The identity and the positions of a query in micro-batches, or from before readers in real-time mode."""
    offset = committed_offset(checkpoint) or first_offset(source, checkpoint)
    match source:
        case KafkaSourceConfig():
            text = files.read(f"{checkpoint.rstrip('/')}/{FILE_NAME}")
            identity = json.loads(text) if text is not None and offset is not None else None
        case KinesisSourceConfig():
            identity = [offset["arn"], offset["created_ms"]] if offset is not None else None
        case FilesSourceConfig():
            identity = None
        case _:
            assert_never(source)
    return identity, ({} if offset is None else positions.positions_in(source, offset))

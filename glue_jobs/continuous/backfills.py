"""Backfills: the records that a store needs from the lake, as one small JSON file a store beside the checkpoints.

`<checkpoint>/backfill/<store>.json` is written before the store goes on without records that the stream has lost, and removed
when they were written from the lake. A store that is new to the pipeline lacks everything before its first live write.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from glue_jobs.storage import files
from lake.layout import escape
from sources import SourceConfig, positions
from sources.files.config import FilesSourceConfig
from sources.positions import Positions

_KNOWN = "stores.json"
"""Under the checkpoint: the names of the stores that the pipeline had when a driver last started."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The records of one source that a store lacks: by partition, those between two positions (`sources.positions`)."""

    begin: Positions | None
    """None: everything."""
    until: Positions | None
    """The position of the first live write to the store; None before the source's query has started with the store."""

    def with_more(self, other: Gap) -> Gap:
        """The gap that covers both."""
        begin = None if self.begin is None or other.begin is None else _combined(min, self.begin, other.begin)
        return Gap(
            begin, None if self.until is None or other.until is None else _combined(max, self.until, other.until)
        )


@dataclass(frozen=True, slots=True)
class Backfill:
    """The gaps of one store, by source, and since when there are some (seconds since the epoch)."""

    store: str
    since: float
    gaps: Mapping[str, Gap]

    def spans(self) -> dict[str, tuple[int, int]] | None:
        """By partition, the positions between which a row must have changed to be written; None: all rows."""
        by_partition: dict[str, tuple[int, int]] = {}
        for gap in self.gaps.values():
            if gap.begin is None or gap.until is None:
                return None
            by_partition |= {place: (begin, gap.until[place]) for place, begin in gap.begin.items()}
        return by_partition


@dataclass
class Backfills:
    """The backfills of one pipeline. A change is on disk when its call returns; to repeat it changes nothing."""

    checkpoint: str
    stores: frozenset[str] = frozenset()
    """Those with a backfill at the last `read`."""
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def read(self) -> dict[str, Backfill]:
        """All backfills by store, as they are now."""
        with self._lock:  # else a backfill that another thread writes meanwhile would be missing from `stores`
            texts = [files.read(f"{self._folder}/{name}") for name in files.names(self._folder)]
            backfills = {record.store: record for text in texts if text for record in [_of_json(json.loads(text))]}
            self.stores = frozenset(backfills)
        return backfills

    def known(self) -> set[str]:
        """The stores that the pipeline had when a driver last started."""
        return set(json.loads(files.read(self._known) or "[]"))

    def register(self, stores: Collection[str], sources: Sequence[SourceConfig], *, fresh: bool) -> list[str]:
        """Write the names of the pipeline's stores; the new ones, which are returned, lack all that was read before.

        No store is new in a `fresh` pipeline, nor before the names were first written. The backfill of a store that was
        dropped is removed, so that the store is new if it is added again. After a kill the next driver does the same.
        """
        configured, text = sorted(stores), files.read(self._known)
        previous = set(configured) if fresh or text is None else self.known()
        added = [name for name in configured if name not in previous]
        with self._lock:
            self._convert_aside(sources)
            for name in self.read().keys() - set(configured):
                files.remove(self._place(name))
            for name in added:
                self._write(Backfill(name, time.time(), {source.name: Gap(None, None) for source in sources}))
            self.read()
        if text is None or json.loads(text) != configured:
            files.write(self._known, json.dumps(configured))
        return added

    def begin(self, source: str, starts: Mapping[str, Positions]) -> None:
        """Note, before a source's query starts, where it starts for each store: up to there a new store lacks all."""
        with self._lock:
            for store, record in self.read().items():
                gap = record.gaps.get(source)
                if gap is None or gap.until is not None or store not in starts:
                    continue
                until = dict(starts[store])
                lost = gap.begin is not None and not gap.begin.keys() <= until.keys()  # a shard that is forgotten
                begun = Gap(None if lost else gap.begin, until)
                self._write(replace(record, gaps={**record.gaps, source: begun}))

    def add(self, store: str, source: str, gap: Gap) -> None:
        """Note the records that a stream has lost, before the store goes on without them."""
        with self._lock:
            record = self.read().get(store) or Backfill(store, time.time(), {})
            before = record.gaps.get(source)
            self._write(replace(record, gaps={**record.gaps, source: before.with_more(gap) if before else gap}))

    def done(self, filled: Backfill) -> bool:
        """Remove a backfill that was written; one that has grown meanwhile stays, and False is returned."""
        with self._lock:
            if self.read().get(filled.store) != filled:
                return False
            files.remove(self._place(filled.store))
            self.stores -= {filled.store}
            return True

    def _convert_aside(self, sources: Sequence[SourceConfig]) -> None:
        """Convert the files in `aside/`, from before stores had positions of their own."""
        folder = f"{self.checkpoint.rstrip('/')}/aside"
        for name in files.names(folder):
            record = json.loads(files.read(f"{folder}/{name}") or "{}")
            if record:
                gaps = {source.name: _gap_of_aside(source, record) for source in sources}
                self._write(Backfill(record["store"], record["since"], gaps))
            files.remove(f"{folder}/{name}")

    @property
    def _folder(self) -> str:
        return f"{self.checkpoint.rstrip('/')}/backfill"

    @property
    def _known(self) -> str:
        return f"{self.checkpoint.rstrip('/')}/{_KNOWN}"

    def _place(self, store: str) -> str:
        return f"{self._folder}/{escape(store)}.json"

    def _write(self, record: Backfill) -> None:
        gaps = {source: {"from": gap.begin, "until": gap.until} for source, gap in record.gaps.items()}
        files.write(self._place(record.store), json.dumps({"store": record.store, "since": record.since, "gaps": gaps}))
        self.stores |= {record.store}


def _of_json(record: Mapping[str, Any]) -> Backfill:
    gaps = {source: Gap(gap["from"], gap["until"]) for source, gap in record["gaps"].items()}
    return Backfill(record["store"], record["since"], gaps)


def _gap_of_aside(source: SourceConfig, record: Mapping[str, Any]) -> Gap:
    """The gap of a store in `aside/`: all since the first record that it missed. Recorded files name no partition."""
    if record["added"] or isinstance(source, FilesSourceConfig):
        return Gap(None, None)
    first = {f"{stream}/{part}": number_of(at) for stream, part, at, _ in record["missed"]}
    return Gap({place: at for place, at in first.items() if positions.is_read(source, place)}, None)


def number_of(position: str) -> int:
    """A record's position in its partition as a number, without its index in an aggregated record of Kinesis."""
    return int(position.partition(":")[0])


def _combined(choose: Callable[[Iterable[int]], int], *several: Positions) -> dict[str, int]:
    places = {place for positions in several for place in positions}
    return {
        place: choose([positions[place] for positions in several if place in positions]) for place in sorted(places)
    }

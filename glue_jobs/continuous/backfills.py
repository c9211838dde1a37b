"""What stores lack that the stream no longer gives them, as one small JSON file a store beside the checkpoints.

`<checkpoint>/backfill/<store>.json` is written before the store goes on without those records, and removed when all of them
were brought in from the lake. A store that is new to the pipeline lacks everything before its first live write.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from glue_jobs.storage import files
from lake.layout import escape
from sources import positions
from sources.files.config import FilesSourceConfig

if TYPE_CHECKING:
    from sources import SourceConfig
    from sources.positions import Positions

_KNOWN = "stores.json"
"""Under the checkpoint: the names of the stores that the pipeline had when a driver last started."""


@dataclass(frozen=True, slots=True)
class Gap:
    """What a store lacks of one source: of each partition, the records between two positions (`sources.positions`)."""

    begin: Positions | None
    """None: everything."""
    until: Positions | None
    """Where live writes to the store go on; None before the source's query has started with the store."""

    def with_more(self, other: Gap) -> Gap:
        """What both lack."""
        begin = None if self.begin is None or other.begin is None else _each(min, self.begin, other.begin)
        return Gap(begin, None if self.until is None or other.until is None else _each(max, self.until, other.until))


@dataclass(frozen=True, slots=True)
class Backfill:
    """What one store lacks, by source, and since when (seconds since the epoch)."""

    store: str
    since: float
    gaps: Mapping[str, Gap]

    def spans(self) -> dict[str, tuple[int, int]] | None:
        """By partition, the positions that rows must have changed between to be written; None: all rows."""
        by_partition: dict[str, tuple[int, int]] = {}
        for gap in self.gaps.values():
            if gap.begin is None or gap.until is None:
                return None
            by_partition |= {place: (begin, gap.until[place]) for place, begin in gap.begin.items()}
        return by_partition


@dataclass
class Backfills:
    """The records of one pipeline. Every change is on disk when the call returns, and does no harm done twice."""

    checkpoint: str
    stores: frozenset[str] = frozenset()
    """Those that lacked something when this last looked."""
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def look(self) -> dict[str, Backfill]:
        """Read all records as they are now."""
        with self._lock:  # else a record that another thread writes meanwhile would be missing from `stores`
            texts = [files.read(f"{self._folder}/{name}") for name in files.names(self._folder)]
            records = {record.store: record for text in texts if text for record in [_of_json(json.loads(text))]}
            self.stores = frozenset(records)
        return records

    def known(self) -> set[str]:
        """The stores that the pipeline had when a driver last started."""
        return set(json.loads(files.read(self._known) or "[]"))

    def configured(self, stores: Collection[str], sources: Sequence[SourceConfig], *, fresh: bool) -> list[str]:
        """Remember which stores the pipeline has; those that are new to it lack all that was read before.

        Nothing lacks anything in a `fresh` pipeline, nor in one that never told of its stores. A store that is dropped is
        forgotten, so that it is new if it is ever added again. Killed in between, the same is done by the next driver.
        """
        configured, text = sorted(stores), files.read(self._known)
        previous = set(configured) if fresh or text is None else self.known()
        added = [name for name in configured if name not in previous]
        with self._lock:
            self._take_over(sources)
            for name in self.look().keys() - set(configured):
                files.remove(self._place(name))
            for name in added:
                self._write(Backfill(name, time.time(), {source.name: Gap(None, None) for source in sources}))
            self.look()
        if text is None or json.loads(text) != configured:
            files.write(self._known, json.dumps(configured))
        return added

    def begin(self, source: str, starts: Mapping[str, Positions]) -> None:
        """Remember, before a source's query starts, where it goes on for each store: up to there a new store lacks all."""
        with self._lock:
            for store, record in self.look().items():
                gap = record.gaps.get(source)
                if gap is None or gap.until is not None or store not in starts:
                    continue
                until = dict(starts[store])
                lost = gap.begin is not None and not gap.begin.keys() <= until.keys()  # a shard that is forgotten
                begun = Gap(None if lost else gap.begin, until)
                self._write(replace(record, gaps={**record.gaps, source: begun}))

    def add(self, store: str, source: str, gap: Gap) -> None:
        """Remember, before a store goes on without them, records that a stream has lost."""
        with self._lock:
            record = self.look().get(store) or Backfill(store, time.time(), {})
            before = record.gaps.get(source)
            self._write(replace(record, gaps={**record.gaps, source: before.with_more(gap) if before else gap}))

    def done(self, filled: Backfill) -> bool:
        """Forget a record whose store got all that it tells of; one that tells of more by now stays."""
        with self._lock:
            if self.look().get(filled.store) != filled:
                return False
            files.remove(self._place(filled.store))
            self.stores -= {filled.store}
            return True

    def _take_over(self, sources: Sequence[SourceConfig]) -> None:
        """Make records of those that were kept in `aside/` before stores had positions of their own."""
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
    """What a store that was set aside lacks: all since the first record that it missed. Recorded files name no partition."""
    if record["added"] or isinstance(source, FilesSourceConfig):
        return Gap(None, None)
    first = {f"{stream}/{part}": number_of(at) for stream, part, at, _ in record["missed"]}
    return Gap({place: at for place, at in first.items() if positions.is_read(source, place)}, None)


def number_of(position: str) -> int:
    """A record's position in its partition as a number, whatever its place in an aggregated record of Kinesis."""
    return int(position.partition(":")[0])


def _each(choose: Callable[[Iterable[int]], int], *several: Positions) -> dict[str, int]:
    places = {place for positions in several for place in positions}
    return {
        place: choose([positions[place] for positions in several if place in positions]) for place in sorted(places)
    }

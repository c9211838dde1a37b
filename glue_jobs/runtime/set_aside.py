"""Stores that are not in step, and what they missed, as one small JSON file each beside the checkpoints.

`<checkpoint>/aside/<store>.json` is written by the driver that indexes, before Spark commits what the store missed, and read
by its workers. While it stands the store lacks something; it goes when all of that was brought in from the lake.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from glue_jobs.runtime import files
from lake.layout import escape
from sinks.several import Missed, Phase
from sinks.work_unit import Span, wider

_LOOK_SECONDS = 0.5
_REMOTE_LOOK_SECONDS = 5.0
_KNOWN = "stores.json"
"""Under the checkpoint: the names of the stores that the pipeline had when a driver last started."""


@dataclass(frozen=True, slots=True)
class AsideRecord:
    """One store: since when it is not in step, and from when on it is written again (seconds since the epoch)."""

    store: str
    since: float
    phase: Phase = "aside"
    returning_since: float = 0.0
    missed: tuple[tuple[str, str, str, str], ...] = ()
    """Stream, partition, first and last position of records it should have got something of."""
    added: bool = False
    """Whether it is new to the pipeline, and lacks whatever was read before it was written."""
    read_before: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Of one that is new, by source: how far index had come when live writes to the store began."""

    def spans(self) -> dict[tuple[str, str], Span]:
        """What was missed, by stream and partition."""
        return {(stream, partition): (first, last) for stream, partition, first, last in self.missed}


@dataclass
class SetAside:
    """The records of one pipeline; in a worker, of what its driver wrote."""

    checkpoint: str
    _records: dict[str, AsideRecord] = field(default_factory=dict)
    _looked_at: float = 0.0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle as the place alone."""
        return {"checkpoint": self.checkpoint}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Look anew."""
        self.__init__(state["checkpoint"])  # type: ignore[misc]

    def phases(self) -> dict[str, Phase]:
        """The phase of each store that is not in step, as of a moment ago."""
        with self._lock:
            patience = _REMOTE_LOOK_SECONDS if files.is_remote(self.checkpoint) else _LOOK_SECONDS
            if time.monotonic() - self._looked_at > patience:
                self.look()
            return {store: record.phase for store, record in self._records.items()}

    def look(self) -> dict[str, AsideRecord]:
        """Read all records as they are now."""
        with self._lock:
            found = [files.read(f"{self._folder}/{name}") for name in files.names(self._folder)]
            self._records = {record.store: record for text in found if text for record in [_restored(text)]}
            self._looked_at = time.monotonic()
            return dict(self._records)

    def configured(self, stores: Collection[str], *, fresh: bool) -> list[str]:
        """Remember which stores the pipeline has; those that are new to it, which lack all that was read before, come back.

        Nothing lacks anything in a `fresh` pipeline, nor in one that never told of its stores. A store that is dropped is
        forgotten, so that it is new if it is ever added again. Killed in between, the same is done by the next driver.
        """
        told, place, now = sorted(stores), f"{self.checkpoint.rstrip('/')}/{_KNOWN}", time.time()
        text = files.read(place)
        known = set(told if fresh or text is None else json.loads(text))
        with self._lock:
            for name in sorted(self.look().keys() - set(told)):
                files.remove(self._place(name))
            added = [name for name in told if name not in known]
            for name in added:
                self._write(AsideRecord(name, now, "returning", now, added=True))
            self.look()
        if text is None or json.loads(text) != told:
            files.write(place, json.dumps(told))
        return added

    def writes_begin(self, source: str, read: Mapping[str, int]) -> None:
        """Remember, before a query starts, how far it had read a source that stores which are new get from now on."""
        with self._lock:
            for record in self.look().values():
                if record.added and source not in record.read_before:
                    self._write(replace(record, read_before={**record.read_before, source: dict(read)}))

    def missed(self, store: str, missed: Missed, positions: Iterable[tuple[str, str, str, str]]) -> None:
        """Remember what a store missed; one that was tried in vain is aside from now on."""
        with self._lock:
            record = self.look().get(store) or AsideRecord(store, missed.since, "returning", time.time())
            spans = record.spans()
            for stream, partition, first, last in positions:
                spans[stream, partition] = wider(spans.get((stream, partition), (first, last)), (first, last))
            told = tuple(sorted((*place, *span) for place, span in spans.items()))
            self._write(replace(record, missed=told, phase="aside" if missed.tried else record.phase))

    def returning(self, store: str) -> None:
        """Let a store that answers again be written again: before it is caught up, so that no gap is left."""
        with self._lock:
            if (record := self.look().get(store)) is not None:
                self._write(replace(record, phase="returning", returning_since=time.time()))

    def taken_back(self, caught_up: AsideRecord) -> bool:
        """Forget a store that got all it had missed, unless it has missed more since then."""
        with self._lock:
            if self.look().get(caught_up.store) != caught_up:
                return False
            files.remove(self._place(caught_up.store))
            self.look()
            return True

    @property
    def _folder(self) -> str:
        return f"{self.checkpoint.rstrip('/')}/aside"

    def _place(self, store: str) -> str:
        return f"{self._folder}/{escape(store)}.json"

    def _write(self, record: AsideRecord) -> None:
        files.write(self._place(record.store), json.dumps(asdict(record)))
        self.look()


def _restored(text: str) -> AsideRecord:
    told = json.loads(text)
    return AsideRecord(**told | {"missed": tuple(tuple(each) for each in told["missed"])})

"""Streams with many records of tables that are not configured: reported by `status`, `check` and the log."""

from __future__ import annotations

import datetime as dt
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from lake.landing.decoding import Tally, counted
from lake.layout import LakeLayout
from lake.storage import rows_of, scan

_LOG = logging.getLogger(__name__)
REASON = "table not configured"
SHARE = 0.1
"""The least share of a stream's records that is reported; tables that share a stream on purpose may be left out."""
_RECENT = dt.timedelta(days=1)


@dataclass(frozen=True)
class LeftOut:
    """A stream, how many records of it there were in the last day, and how many of them by table that is not configured."""

    stream: str
    read: int
    tables: Counter[str]

    @property
    def sentence(self) -> str:
        """The same for a person."""
        names = ", ".join(name for name, _ in self.tables.most_common(5)) + (", …" if len(self.tables) > 5 else "")
        return (
            f"{self.stream}: {self.tables.total()} of {self.read} records are of tables that are not configured: {names}. "
            f"Add them to `tables`, or to the `partitions` of the table that they are part of"
        )


def left_out(layout: LakeLayout, is_configured: Callable[[str], bool]) -> list[LeftOut]:
    """Streams of which at least `SHARE` was left out in the last day, counting tables that are still not configured."""
    import pyarrow.dataset as ds

    since = ds.field("_ingest_time") >= dt.datetime.now(dt.UTC) - _RECENT
    ignored = rows_of(layout.path("ignored"), ["stream", "_table", "reason", "records"], since)
    left: dict[str, Counter[str]] = {}
    for row in ignored:
        if row["reason"] == REASON and not is_configured(row["_table"]):
            left.setdefault(row["stream"], Counter())[row["_table"]] += row["records"]
    if not left:
        return []
    read = Counter[str]()
    for row in ignored:
        read[row["stream"]] += row["records"]
    for name in ("changes", "rejects"):
        for batch in scan(layout.path(name), ["stream"], since):
            read.update(counted(batch.column(0)))
    return [
        LeftOut(stream, read[stream], tables)
        for stream, tables in sorted(left.items())
        if _is_much(tables, read[stream])
    ]


@dataclass
class LeftOutLog:
    """Logs each stream once, when the share of it that this process left out is large."""

    _read: Counter[str] = field(default_factory=Counter)
    _left: dict[str, Counter[str]] = field(default_factory=dict)
    _logged: set[str] = field(default_factory=set)

    def add(self, tally: Tally) -> None:
        """Take in what became of a batch."""
        self._read.update(tally.read)
        for (stream, _, table, reason), count in tally.ignored.items():
            if reason == REASON:
                self._left.setdefault(stream, Counter())[table] += count
        for left in self._new():
            self._logged.add(left.stream)
            context = {"stream": left.stream, "tables": sorted(left.tables), "records": left.tables.total()}
            _LOG.warning(
                "records are of tables that are not configured", extra={"context": context | {"read": left.read}}
            )

    def _new(self) -> Iterator[LeftOut]:
        for stream, tables in self._left.items():
            if stream not in self._logged and _is_much(tables, self._read[stream]):
                yield LeftOut(stream, self._read[stream], tables)


def _is_much(tables: Counter[str], read: int) -> bool:
    return tables.total() >= SHARE * read

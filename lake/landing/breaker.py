"""The breaker: it stops a job that makes too many rejects; landing before anything of the batch is written.

A mistake in a configuration or a capture rejects every record of a table, and each would have to be replayed. So a job stops
where rejects are a large share of a table's last records, or where one class of them (table and condition) has become too
large within a day. What was not landed is landed by the next run. The counts outlive the driver.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field

from schemas.errors import StoppedError
from schemas.model import StrictModel

if TYPE_CHECKING:
    from lake.landing.decoding import Tally

_DAY_SECONDS = 24 * 3600.0

type RejectClass = tuple[str, str]
"""Table (empty where it is not known) and condition."""


class RejectsConfig(StrictModel):
    """When landing and indexing stop because of rejects; `null` lifts a limit."""

    most_share: float | None = Field(default=0.5, gt=0, le=1)
    """A job stops where more than this share of the last records of a table are rejects; where the table of a record is not
    known, of all records of the source."""
    among: int = Field(default=1000, ge=1)
    """Records of which the share is taken, at least; about twice as many at most."""
    most_of_a_class: int | None = Field(default=10_000, ge=1)
    """A job stops where rejects of one table with one condition become more than this within a day."""


class CountsFile(NamedTuple):
    """Reads and writes the text of the counts, which outlives a driver; None before the first one."""

    read: Callable[[], str | None]
    write: Callable[[str], None]


class Watched(NamedTuple):
    """The work that a breaker stops, in words."""

    work: str
    outcome: str
    """What became of the rejects of the batch that is stopped at."""
    remedy: str
    """How to go on once the cause is mended."""


INDEXING = Watched(
    "indexing", "They are in `rejects`, and their documents are not searchable.",
    "Mend the model, the store or the documents' configuration, then run again, and bring them back",
)  # fmt: skip


def landing_of(source: str) -> Watched:
    """The landing of a source."""
    remedy = (
        "Mend the configuration or the capture, then run again: landing goes on with this batch. Or let them become rejects by "
        "`ragstream run CONFIG --accept-rejects`, and bring them back later"
    )
    return Watched(f"landing of source {source}", "Nothing of the batch was written.", remedy)


class Example(NamedTuple):
    """Where a reject of a class stands, and its message."""

    stream: str
    partition: str
    position: str
    message: str


@dataclass
class RejectCounts:
    """What was read and rejected of late, as text for a checkpoint too."""

    settings: str = ""
    """The name of the settings under which they were rejects."""
    batch: int = -1
    """The last batch that is in the counts."""
    records: Counter[str] = field(default_factory=Counter)
    """Recent records by table; of the empty name, those of the source."""
    recent: Counter[RejectClass] = field(default_factory=Counter)
    """Recent rejects."""
    day: Counter[RejectClass] = field(default_factory=Counter)
    """Rejects since `began`."""
    began: float = 0.0

    def text(self) -> str:
        """As JSON."""
        flat = {name: [[*key, n] for key, n in getattr(self, name).items()] for name in ("recent", "day")}
        plain = {name: getattr(self, name) for name in ("settings", "batch", "records", "began")}
        return json.dumps(plain | flat)

    @classmethod
    def of(cls, text: str) -> RejectCounts:
        """The inverse of `text`."""
        document = json.loads(text)
        recent, day = (Counter({(t, c): n for t, c, n in document[name]}) for name in ("recent", "day"))
        records = Counter(document["records"])
        return cls(document["settings"], document["batch"], records, recent, day, document["began"])

    def after(self, tally: Tally, batch: int, among: int, now: float) -> RejectCounts:
        """The counts with a batch; what is older than the last `among` records, or than a day, fades."""
        is_new_day = now - self.began >= _DAY_SECONDS
        counts = RejectCounts(
            self.settings, batch, self.records.copy(), self.recent.copy(),
            Counter() if is_new_day else self.day.copy(), now if is_new_day else self.began,
        )  # fmt: skip
        old = {table for table, records in counts.records.items() if records > among}
        for table in old:
            counts.records[table] //= 2
        for name in counts.recent:
            counts.recent[name] //= 2 if name[0] in old else 1
        for by_table in (tally.landed, tally.rejected):
            counts.records.update({table: records for table, records in by_table.items() if table})
        counts.records[""] += tally.records
        counts.recent.update(tally.rejected_as)
        counts.day.update(tally.rejected_as)
        return counts

    def tripping(self, tally: Tally, config: RejectsConfig) -> tuple[RejectClass, str] | None:
        """The largest class of the batch's rejects that is over a limit, and what it would be."""
        for (table, condition), _ in tally.rejected_as.most_common():
            records = self.records[table]
            rejects = sum(number for (of, _), number in self.recent.items() if of == table)
            name = (table, condition)
            if config.most_share is not None and records >= config.among and rejects > config.most_share * records:
                return name, f"{rejects} of the last {records} records {f'of {table}' if table else 'of the source'}"
            if config.most_of_a_class is not None and self.day[name] > config.most_of_a_class:
                return name, f"{self.day[name]} records {f'of {table} ' if table else ''}within a day"
        return None


class Breaker:
    """Decides after each batch whether the work goes on; one query uses it."""

    def __init__(self, watched: Watched, settings: str, config: RejectsConfig | None, file: CountsFile) -> None:
        """Without a configuration every batch is admitted, and the counts begin anew, as they do with other `settings`.

        `settings` names all that decides what is a reject; `file` has the counts of earlier drivers.
        """
        self._watched, self._settings, self._config, self._file = watched, settings, config, file
        text = file.read()
        counts = RejectCounts.of(text) if text else RejectCounts()
        same = config is not None and counts.settings == settings
        self._counts = counts if same else RejectCounts(settings, counts.batch)

    def admit(self, batch: int, tally: Tally) -> None:
        """Count a batch; one that runs again was admitted before.

        Raises:
            StoppedError: it makes too many rejects; where it is not written yet, it may not be.
        """
        if batch == self._counts.batch:
            return
        if self._config is None:
            self._counts = RejectCounts(self._settings, batch)
        else:
            counts = self._counts.after(tally, batch, self._config.among, time.time())
            over = counts.tripping(tally, self._config)
            if over:
                raise _stopped(self._watched, over[0], over[1], tally)
            self._counts = counts
        if tally.rejected_as:
            self._file.write(self._counts.text())


def _stopped(watched: Watched, name: RejectClass, number: str, tally: Tally) -> StoppedError:
    table, condition = name
    example = tally.examples[name]
    replay = f"ragstream replay CONFIG --condition {condition}" + (f" --table {table}" if table else "")
    return StoppedError(
        f"{watched.work} stops: {number} are rejects, most of this batch by {condition}: {example.message}. "
        f"One of them: {example.stream}/{example.partition} at {example.position}. {watched.outcome}",
        condition="TOO_MANY_REJECTS",
        hint=f"{watched.remedy} by `{replay}`. `ragstream run CONFIG --accept-rejects` goes on all the same. The limits are "
        "`rejects` in the configuration.",
    )

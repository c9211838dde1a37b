"""One workload for every system: a table of articles, committed changes at a fixed rate, a poller on the target.

Mix: 60 % metadata only, 20 % text edits, 10 % inserts, 5 % deletes, 5 % replays (the same values committed again), one
commit each. A change is searchable when a poll of the target (one query over the primary keys that are awaited, every
10 ms) shows it. Times run from the return of the commit to the return of that poll.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg

from local_stack.models.instant import instant_vector

WARM_SECONDS = 15.0
DRAIN_SECONDS = 40.0
LOOK_ROWS = 100
"""Rows of one poll at a hundred polls a second, so that polling a target costs no more the further it is behind."""
_SEARCHED = {"meta": "nonce", "text": "revision", "insert": "revision", "delete": "gone"}
_STATUS = ("new", "open", "held", "closed")
WORDS = """
    account address allow answer apply archive arrive balance battery before begin billing board bridge budget
    cable cache call card case catalog change charge check city claim clean client cloud code color commit
    common compare confirm connect contact contract copy corner cost count country course create credit customer
    damage data date deal decide deliver demand depend detail device dinner direct door doubt draft drive
    early edge email engine enter error event every exact expect fact field file final find finish fix flight
    follow form free front garden gate
""".split()  # noqa: SIM905 - a hundred quotes fewer
_CREATE = """
DROP TABLE IF EXISTS articles;
CREATE TABLE articles (id bigint PRIMARY KEY, title text NOT NULL, body text NOT NULL, status text NOT NULL,
                       updated_at timestamptz NOT NULL DEFAULT now(), nonce bigint NOT NULL)"""

_COPY_KEY = """
CREATE OR REPLACE FUNCTION copy_key() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN new.aid := new.id; RETURN new; END'"""


def prepare(dsn: str, rows: int, *, whole_rows: bool = False, copied_key: bool = False) -> None:
    """Create and fill the source table; `whole_rows` for systems that need REPLICA IDENTITY FULL, `copied_key` for `aid`."""
    r = random.Random(1)
    with psycopg.connect(dsn, autocommit=True) as source:
        source.execute(_CREATE)
        if whole_rows:
            source.execute("ALTER TABLE articles REPLICA IDENTITY FULL")
        if copied_key:
            source.execute("ALTER TABLE articles ADD COLUMN aid bigint")
            source.execute(_COPY_KEY)
            source.execute("CREATE TRIGGER copy_key BEFORE INSERT ON articles FOR EACH ROW EXECUTE FUNCTION copy_key()")
        with source.cursor().copy("COPY articles (id, title, body, status, nonce) FROM STDIN") as copy:
            for number in range(1, rows + 1):
                copy.write_row((number, f"Article {number} {_words(r, 4)}", _body(r, 0), "new", 0))


def _words(r: random.Random, count: int) -> str:
    return " ".join(r.choices(WORDS, k=count))


def _body(r: random.Random, revision: int) -> str:
    return f"rev {revision} {_words(r, r.randint(50, 75))}"


type Look = Callable[[Sequence[int]], Mapping[int, tuple[int | None, str | None]]]
"""Asks a target for rows by id: nonce and text of those that are there."""


@contextmanager
def by_query(dsn: str, query: str, row_name: Callable[[int], Any] = int) -> Iterator[Look]:
    """Poll by a query of PostgreSQL with one parameter, the names of the rows; it returns id, nonce and text."""
    with psycopg.connect(dsn, autocommit=True) as target:
        yield lambda ids: {
            key: (nonce, text) for key, nonce, text in target.execute(query.encode(), (list(map(row_name, ids)),))
        }


@dataclass(eq=False)
class Poller(threading.Thread):
    """Polls the target for awaited changes by a client of its own."""

    target: AbstractContextManager[Look]
    every: float = 0.01
    """Seconds between the starts of two polls."""
    most: int | None = None
    """Rows of one poll, those awaited longest, which bounds its cost for a lagging target."""
    probe: int | None = None
    """Number of awaited rows that are polled until one shows, for a target where polling is expensive."""
    deletes: bool = True
    """Whether a missing row counts as deleted; a lagging target may not have the row yet."""
    done: list[tuple[str, float, float]] = field(default_factory=list)
    """Kind of change, commit time, time of the poll that showed it."""

    def __post_init__(self) -> None:
        """Start with nothing awaited."""
        super().__init__(daemon=True)
        self._awaited: dict[int, list[tuple[int, str, float]]] = defaultdict(list)
        self._lock = threading.Lock()
        self._halt = threading.Event()

    def await_change(self, key: int, nonce: int, kind: str, committed: float) -> None:
        """Begin to await a change."""
        with self._lock:
            if kind == "delete" and not self.deletes:
                self._awaited.pop(key, None)
            else:
                self._awaited[key].append((nonce, kind, committed))

    @property
    def awaited(self) -> dict[int, list[tuple[int, str, float]]]:
        """Changes that are not visible yet, by id."""
        return self._awaited

    def run(self) -> None:
        """Poll until halted."""
        with self.target as look:
            while not self._halt.is_set():
                began = time.time()
                self._poll(look, began)
                time.sleep(max(0.0, self.every - (time.time() - began)))

    def lag(self) -> float:
        """Seconds that the oldest awaited change has waited."""
        with self._lock:
            waiting = [changes[0][2] for changes in self._awaited.values() if changes]
        return time.time() - min(waiting) if waiting else 0.0

    def drain(self, seconds: float) -> None:
        """Wait until nothing is awaited or for a number of seconds, then end the thread."""
        began = time.monotonic()
        while self._awaited and time.monotonic() - began < seconds:
            time.sleep(0.1)
        self.halt()

    def halt(self) -> None:
        """End the thread."""
        self._halt.set()
        self.join()

    def _poll(self, look: Look, began: float) -> None:
        with self._lock:
            awaited = list(self._awaited)
        if self.probe is not None:
            if not self._look(look, random.sample(awaited, min(self.probe, len(awaited))), began):
                return
            began = time.time()
        self._look(look, awaited[: self.most], began)

    def _look(self, look: Look, keys: Sequence[int], began: float) -> bool:
        """Poll rows; returns whether one of them showed its change."""
        if not keys:
            return False
        rows = {key: (nonce, _revision(text)) for key, (nonce, text) in look(keys).items()}
        shown, before = time.time(), len(self.done)
        with self._lock:
            for key in keys:
                left = self._awaited.get(key, [])
                seen = 0
                for index, (nonce, kind, committed) in enumerate(left):
                    if committed > began:
                        break
                    if _shows(rows.get(key), nonce, kind):
                        seen = index + 1  # a later change that shows proves the earlier ones of its row
                self.done += [(kind, committed, shown) for _, kind, committed in left[:seen]]
                del left[:seen]
                if not left:
                    self._awaited.pop(key, None)
        return len(self.done) > before


def _shows(row: tuple[int | None, int] | None, nonce: int, kind: str) -> bool:
    if kind == "delete":
        return row is None
    return row is not None and ((row[0] or -1) if kind == "meta" else row[1]) >= nonce


def _revision(text: str | None) -> int:
    _, marker, rest = (text or "").partition("rev ")
    return int(rest.split(" ", 1)[0]) if marker else -1


@dataclass
class Committer:
    """Commits the mix at a rate; a row that is awaited where deletes are watched is not deleted."""

    dsn: str
    pollers: Sequence[Poller]
    seed: int = 11
    kinds: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    late: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)
    """Ends `run` before its time."""

    def __post_init__(self) -> None:
        """Seed the random choices, which a second run continues."""
        self._random = random.Random(self.seed)

    def run(self, rate: float, seconds: float) -> None:
        """Commit `rate` changes a second; lateness of more than 0.1 s is counted."""
        sys.setswitchinterval(0.0005)
        with psycopg.connect(self.dsn, autocommit=True) as source:
            self._source = source
            self._live = [key for (key,) in source.execute("SELECT id FROM articles")]
            self._fresh, self._nonce = max(self._live) + 1, int(time.time() * 10) % 10**9 * 1000
            start = time.time()
            for number in range(int(rate * seconds)):
                due = start + number / rate
                wait = due - time.time()
                if wait > 0:
                    time.sleep(wait)
                self.late += wait < -0.1
                if self.stopped.is_set():
                    return
                self._commit()

    def _commit(self) -> None:
        r, self._nonce = self._random, self._nonce + 1
        nonce, draw, key = self._nonce, r.random(), r.choice(self._live)
        kind = "meta" if draw < 0.60 else "text" if draw < 0.80 else "insert" if draw < 0.90 else "delete"
        kind = "replay" if draw >= 0.95 else kind
        if kind == "meta":
            self._execute(
                "UPDATE articles SET status = %s, nonce = %s, updated_at = now() WHERE id = %s",
                r.choice(_STATUS),
                nonce,
                key,
            )
        elif kind == "text":
            self._execute(
                "UPDATE articles SET body = %s, nonce = %s, updated_at = now() WHERE id = %s",
                _body(r, nonce),
                nonce,
                key,
            )
        elif kind == "insert":
            key, self._fresh = self._fresh, self._fresh + 1
            self._execute(
                "INSERT INTO articles (id, title, body, status, nonce) VALUES (%s, %s, %s, 'new', %s)",
                key,
                f"Article {key} fresh",
                _body(r, nonce),
                nonce,
            )
            self._live.append(key)
        elif kind == "delete":
            key = self._take(r)
            self._execute("DELETE FROM articles WHERE id = %s", key)
        else:
            self._execute("UPDATE articles SET status = status, nonce = nonce, body = body WHERE id = %s", key)
        committed = time.time()
        self.kinds[kind] += 1
        for poller in self.pollers if kind != "replay" else ():
            poller.await_change(key, nonce, kind, committed)

    def _execute(self, statement: str, *values: Any) -> None:
        self._source.execute(statement.encode(), values)

    def _take(self, r: random.Random) -> int:
        index = r.randrange(len(self._live))
        while any(self._live[index] in poller.awaited for poller in self.pollers if poller.deletes):
            index = r.randrange(len(self._live))
        self._live[index], self._live[-1] = self._live[-1], self._live[index]
        taken: int = self._live.pop()
        return taken


def wait_loaded(dsn: str, query: str, rows: int, seconds: float) -> float:
    """Wait until the target shows the initial load; returns its seconds. Raises TimeoutError."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        try:
            with psycopg.connect(dsn, autocommit=True) as target:
                if (target.execute(_over("count(*)", query)).fetchone() or (0,))[0] >= rows:
                    return time.monotonic() - began
        except psycopg.Error:
            pass
        time.sleep(0.25)
    raise TimeoutError("the initial load did not show in the target")


def percentiles(poller: Poller, since: float) -> dict[str, Any]:
    """p50, p90 and p99 in milliseconds, of all kinds and of each, of changes committed since a moment."""
    measured = [(kind, (shown - committed) * 1000) for kind, committed, shown in poller.done if committed >= since]

    def of(values: list[float]) -> list[int] | None:
        return [round(float(x)) for x in np.percentile(values, (50, 90, 99))] if values else None

    kinds = {kind: of([ms for k, ms in measured if k == kind]) for kind in _SEARCHED}
    return {"measured": len(measured), "ms_p50_p90_p99": of([ms for _, ms in measured]), "by_kind": kinds}


def wrong_rows(source_dsn: str, target_dsn: str, query: str, one_in: int = 1) -> dict[str, int]:
    """Compare every row, or one in so many, of the target (id, nonce, status, txt, vec) with the source; count what is wrong."""
    with psycopg.connect(source_dsn) as source, psycopg.connect(target_dsn) as target:
        chosen = {"one_in": one_in}
        source_rows = source.execute(
            "SELECT id, nonce, status, title || E'\\n\\n' || body FROM articles WHERE id %% %(one_in)s = 0", chosen
        )
        wanted = {row[0]: row[1:] for row in source_rows}
        compared = _over("id, nonce, status, txt, vec::text", query) + b" WHERE id %% %(one_in)s = 0"
        rows = target.execute(compared, chosen).fetchall()
    stored = {row[0]: row[1:] for row in rows}
    both = wanted.keys() & stored.keys()
    return {
        "missing": len(wanted.keys() - stored.keys()),
        "orphan": len(stored.keys() - wanted.keys()),
        "duplicate": len(rows) - len(stored),
        "stale": sum(stored[key][:3] != wanted[key] for key in both),
        "wrong_vector": sum(not _vector_of(stored[key][3], wanted[key][2]) for key in both),
    }


def _vector_of(vector: str | None, text: str) -> bool:
    """Whether a vector is the instant model's of a text; padding beyond the model's own size is zero."""
    if vector is None:
        return False
    native = instant_vector(text)
    return float(np.dot(np.array(vector[1:-1].split(","), np.float32)[: len(native)], native)) > 0.99


def _over(columns: str, query: str) -> bytes:
    """Select from a peer's `target` query, which is a constant of this package."""
    return f"SELECT {columns} FROM ({query}) t".encode()  # noqa: S608

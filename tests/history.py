"""A small PostgreSQL table as a model: random histories, the changes Debezium would emit, and the rows at the end."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from schemas.changes import Change
from schemas.records import Record
from transforms.context import key_text
from transforms.fold import EMPTY, Rows, RowState, apply, truncated_at
from transforms.positions.postgresql import lsn_position
from transforms.positions.sequence import sequence, stream_position
from transforms.values import exact_json

TABLE = "public.t"


def key_of(number: int) -> str:
    """The key of a row as decoding renders it."""
    return key_text(["id"], {"id": number}) or ""


@dataclass
class ModelTable:
    """Executes operations, and remembers rows and emitted changes.

    A body is large: an update or key change that leaves it alone does not tell it (unchanged TOAST). With `sums` there is a
    column that stops coming with some whole rows, as a generated one does: from then on it is pending, until it is told
    again or a key change takes the older one along.
    """

    rows: dict[int, dict[str, object]] = field(default_factory=dict)
    silent: dict[int, object] = field(default_factory=dict)
    """The last sums that were told, of rows whose sum has stopped coming."""
    changes: list[Change] = field(default_factory=list)
    moved: set[int] = field(default_factory=set)
    position: int = 0
    sums: bool = False

    def _next(self) -> str:
        self.position += 1
        return self._at(self.position, self.position)

    def _at(self, position: int, offset: int) -> str:
        return sequence(0, lsn_position(position, position), stream_position(str(offset)))

    def _sum(self, text: str) -> dict[str, str]:
        return {"sum": f"sum {text}"} if self.sums else {}

    def insert(self, number: int, text: str) -> None:
        """INSERT a row, told as a whole."""
        row = {"id": number, "a": text, "body": f"body {text}"} | self._sum(text)
        self.rows[number] = row
        self.changes.append(Change(TABLE, "c", self._next(), key_of(number), dict(row), complete=True))

    def update_a(self, number: int, text: str) -> None:
        """UPDATE the small column; the body is not told."""
        self.rows[number]["a"] = text
        columns = {n: v for n, v in self.rows[number].items() if n != "body"}
        self.changes.append(Change(TABLE, "u", self._next(), key_of(number), columns, unavailable=("body",)))

    def update_body(self, number: int, text: str) -> None:
        """UPDATE the body; the sum comes again."""
        self.rows[number] |= {"body": f"body {text}"} | self._sum(text)
        self.silent.pop(number, None)
        self.changes.append(Change(TABLE, "u", self._next(), key_of(number), dict(self.rows[number]), complete=True))

    def update_without_sum(self, number: int, text: str) -> None:
        """UPDATE the body; the sum does not come with the whole row."""
        self.rows[number]["body"] = f"body {text}"
        if "sum" in self.rows[number]:
            self.silent[number] = self.rows[number].pop("sum")
        self.changes.append(Change(TABLE, "u", self._next(), key_of(number), dict(self.rows[number]), complete=True))

    def delete(self, number: int) -> None:
        """DELETE a row."""
        del self.rows[number]
        self.silent.pop(number, None)
        self.changes.append(Change(TABLE, "d", self._next(), key_of(number)))

    def move(self, number: int, to: int) -> None:
        """UPDATE the key; the new row is told without its body. The halves have one position and two offsets."""
        row = self.rows.pop(number) | {"id": to}
        self.rows[to] = row
        self.position += 1
        gone, here = (self._at(self.position, place) for place in (self.position, 10**6 - self.position))
        if self.position % 2:
            gone, here = here, gone
        columns = {n: v for n, v in row.items() if n != "body"}
        if number in self.silent:
            row["sum"] = self.silent.pop(number)
        self.changes.append(Change(TABLE, "d", gone, key_of(number), new_key=key_of(to)))
        self.changes.append(
            Change(TABLE, "c", here, key_of(to), columns, complete=True, unavailable=("body",), old_key=key_of(number))
        )
        self.moved.add(number)

    def truncate(self) -> None:
        """TRUNCATE the table."""
        self.rows.clear()
        self.silent.clear()
        self.changes.append(Change(TABLE, "t", self._next(), ""))


def random_history(seed: int, length: int, *, reuse_moved_keys: bool = False, sums: bool = False) -> ModelTable:
    """A history over few keys, so that they are deleted, moved and inserted again often."""
    r, table = random.Random(seed), ModelTable(sums=sums)
    for step in range(length):
        free = [n for n in range(5) if n not in table.rows and (reuse_moved_keys or n not in table.moved)]
        live = list(table.rows)
        kind = r.choice(
            ["insert", "insert", "a", "a", "body", "delete", "move", "move", "truncate", *["no sum"] * sums]
        )
        if kind == "insert" and free:
            table.insert(r.choice(free), str(step))
        elif kind == "truncate" and r.random() < 0.3:
            table.truncate()
        elif kind == "move" and live and free:
            table.move(r.choice(live), r.choice(free))
        elif kind == "delete" and live:
            table.delete(r.choice(live))
        elif kind in {"a", "body", "no sum"} and live:
            updates = {"a": table.update_a, "body": table.update_body, "no sum": table.update_without_sum}
            updates[kind](r.choice(live), str(step))
    return table


def folded(changes: Iterable[Change]) -> dict[str, RowState]:
    """Fold changes in the order given."""
    rows, truncated = Rows(), ""
    for change in changes:
        if change.op == "t":
            truncated = max(truncated, change.sequence)
        else:
            apply(rows, change)
    states = {key: truncated_at(state, truncated) for key, state in rows.items()}
    return {key: state for key, state in states.items() if state != EMPTY}


def contents(states: dict[str, RowState]) -> dict[str, dict[str, object]]:
    """What a reader sees of states: pending columns are left out."""
    return {
        key: {name: value for name, value in state.values().items() if name not in state.unresolved([name])}
        for key, state in states.items()
        if state.exists
    }


def as_record(change: Change, table: str = "t", commit_us: int | None = None) -> Record:
    """The record that decodes to a change of that table, committed then, or in the first seconds of 1970."""
    row = dict(change.columns) | dict.fromkeys(change.unavailable, "__debezium_unavailable_value")
    lsn = int(change.sequence[4:20], 16)
    source = {"schema": "public", "table": table, "sequence": f'["{lsn}","{lsn}"]', "ts_us": commit_us or lsn}
    before = exact_json.loads(change.key) if change.op == "d" else None
    value = {"op": change.op, "before": before, "after": row if change.op in "cur" else None, "source": source}
    headers = {"__debezium.oldkey": change.old_key, "__debezium.newkey": change.new_key}
    named = tuple((name, key.encode()) for name, key in headers.items() if key)
    return Record("t", "0", str(int(change.sequence[52:100], 16)), None, exact_json.dumps(value).encode(), named)

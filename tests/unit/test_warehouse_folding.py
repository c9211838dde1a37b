"""Folding into a warehouse: values stay where they are, and any cut, order and repeat of a history leaves the same rows."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import batched
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.history.key_groups import grouped
from lake.layout import RAW_COLUMNS
from lake.tables.observed_types import ObservedTypes
from lake.tables.shape import TableShape
from schemas.aws import AwsAccess
from schemas.changes import Change
from schemas.tables import TableConfig
from tests.history import TABLE, ModelTable, as_record, contents, folded, key_of, random_history
from transforms.context import DecodeContext, TableContext
from warehouse.folding import KEY_BYTES, Folded, LoadSettings, fold_group
from warehouse.shape import evolved
from warehouse.staging import StagingWriter
from warehouse.states import STATE_BYTES, key_moves_of

CONFIG = TableConfig(table=TABLE, keys=("id",), columns={"id": "int", "a": "text", "body": "text"})
SHAPE = evolved(TableShape(), CONFIG, ObservedTypes())
CONTEXTS = {"desk": DecodeContext("debezium", {TABLE: TableContext(TABLE, ("id",), CONFIG.columns)})}
NOWHERE = StagingWriter(AwsAccess(), "bucket", "folder")


@dataclass
class Warehouse:
    """What the transaction of `warehouse.sql` does to the table, over a dictionary."""

    shape: TableShape = SHAPE
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    truncated: str = ""
    rejects: list[dict[str, Any]] = field(default_factory=list)

    def load(self, changes: Sequence[Change]) -> int:
        """Load a batch; how many rows were written."""
        truncated = max([self.truncated, *(c.sequence for c in changes if c.op == "t")])
        folded_rows = self._folded([c for c in changes if c.op != "t"], truncated)
        new = {}
        for folded_row in folded_rows:
            assert folded_row.row is not None
            new[folded_row.row["_key"]] = folded_row.row | {
                f"c{at}": folded_row.row.get(f"c{at}") for at in range(len(self.shape.columns))
            }
        for piece in (piece for folded_row in folded_rows for piece in folded_row.pieces):
            assert self.rows[piece["_from"]]["_base_revision"] + 1 == piece["_revision"]
            for at, mark in enumerate(piece["_mask"]):
                if mark == "1":
                    new[piece["_key"]][f"c{at}"] = self.rows[piece["_from"]][f"c{at}"]
        for key, row in new.items():
            stored = self.rows.get(key)
            assert row["_base_revision"] == (stored["_base_revision"] + 1 if stored else 0)
            assert stored is None or stored["_sequence"] <= row["_sequence"]
        self.rows |= new
        self.rows = {key: row for key, row in self.rows.items() if row["_sequence"] > truncated}
        self.truncated = truncated
        self.rejects += [reject for folded_row in folded_rows for reject in folded_row.rejects]
        return len(new)

    def _folded(self, changes: Sequence[Change], truncated: str) -> list[Folded]:
        keys = {key for c in changes for key in (c.key, c.old_key, c.new_key) if key}
        while (
            more := {to for key in keys & self.rows.keys() for to in key_moves_of(self.rows[key]["_state"]).values()}
            - keys
        ):
            keys |= more
        lagging = {k for k, row in self.rows.items() if row["_oldest"] <= truncated < row["_sequence"]}
        met = (keys | (lagging if truncated > self.truncated else set())) & self.rows.keys()
        pairs = [(c.key, other) for c in changes for other in (c.old_key, c.new_key) if other]
        pairs += [(key, to) for key in met for to in key_moves_of(self.rows[key]["_state"]).values()]
        roots = grouped(pairs)
        groups: dict[str, list[dict[str, Any]]] = {}
        for key in met:
            row = {"_key": key, "_revision": self.rows[key]["_base_revision"] + 1, "_state": self.rows[key]["_state"]}
            groups.setdefault(roots.get(key, key), []).append(row)
        for change in changes:
            r = as_record(change)
            headers = [{"key": key, "value": value} for key, value in r.headers]
            raw = (r.stream, r.partition, r.position, r.key, r.value, headers, None)
            row = dict(zip(RAW_COLUMNS, raw, strict=True)) | {"_key": change.key, "_source": "desk", "_state": None}
            groups.setdefault(roots.get(change.key, change.key), []).append(row)
        load_settings = LoadSettings(TABLE, CONTEXTS, CONFIG.columns, self.shape, truncated, NOWHERE)
        return [folded_row for rows in groups.values() for folded_row in fold_group(rows, load_settings)]

    def live(self) -> dict[str, dict[str, Any]]:
        """What a reader sees."""
        names = [column.source for column in self.shape.columns]
        rows = {key: row for key, row in self.rows.items() if row["_live"]}
        return {key: {name: row[f"c{at}"] for at, name in enumerate(names)} for key, row in rows.items()}


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), length=st.integers(1, 40), cut=st.integers(1, 12))
def test_any_cut_order_and_repeat_leaves_the_rows_of_one_fold(seed: int, length: int, cut: int) -> None:
    history, r = random_history(seed, length, sums=True).changes, random.Random(seed)
    shuffled = history + r.choices(history, k=len(history) // 3) if history else []
    r.shuffle(shuffled)
    warehouse = Warehouse(evolved(SHAPE, CONFIG, ObservedTypes({"sum": ["text"]})))
    for batch in batched(shuffled, cut):
        warehouse.load(batch)
    expected = contents(folded(history))
    assert warehouse.load(history) == 0
    live = warehouse.live()
    assert live.keys() == expected.keys()
    for key, row in expected.items():
        assert {name: live[key][name] for name in row} == row
        assert json.loads(warehouse.rows[key]["_pending"] or "[]") == sorted({"id", "a", "body", "sum"} - row.keys())


def test_deleted_row_leaves_a_tombstone_without_text_that_refuses_what_is_older() -> None:
    table = ModelTable()
    table.insert(1, "secret")
    table.delete(1)
    insert, delete = table.changes
    warehouse = Warehouse()
    warehouse.load([insert])
    warehouse.load([delete])
    tombstone = warehouse.rows[key_of(1)]
    assert (tombstone["_live"], tombstone["c0"], tombstone["c1"], tombstone["c2"]) == (False, None, None, None)
    assert "secret" not in tombstone["_state"]
    assert warehouse.load([insert]) == 0


def test_a_truncate_leaves_no_row_and_refuses_what_is_older() -> None:
    table = ModelTable()
    table.insert(1, "x")
    table.delete(1)
    table.insert(2, "x")
    table.truncate()
    warehouse = Warehouse()
    for change in table.changes:
        warehouse.load([change])
    assert warehouse.rows == {}
    assert warehouse.load(table.changes) == 0


def test_value_that_does_not_fit_is_told_once_and_its_row_stands() -> None:
    table = ModelTable()
    table.insert(1, "x" * 70_000)
    table.insert(2, "fits")
    warehouse = Warehouse()
    warehouse.load(table.changes)
    assert [(reject["column"], reject["condition"]) for reject in warehouse.rejects] == [
        ("a", "CAST_FAILED"),
        ("body", "CAST_FAILED"),
    ]
    assert warehouse.live()[key_of(1)] == {"id": 1, "a": None, "body": None}
    assert warehouse.load(table.changes) == 0
    assert len(warehouse.rejects) == 2
    table.update_a(1, "short")
    warehouse.load(table.changes[-1:])
    assert warehouse.live()[key_of(1)] == {"id": 1, "a": "short", "body": None}
    assert len(warehouse.rejects) == 2


@pytest.mark.parametrize(("column", "condition"), [("id", "KEY_TOO_LONG")])
def test_a_row_that_the_warehouse_cannot_name_is_a_reject(column: str, condition: str) -> None:
    change = Change(
        TABLE, "c", random_history(1, 5).changes[0].sequence, f'{{"{column}":"{"k" * KEY_BYTES}"}}', {}, complete=True
    )
    rows: list[dict[str, Any]] = [
        {"_key": change.key, "_state": None, "_source": "desk"}
        | dict(zip(RAW_COLUMNS, ("t", "0", "1", None, _value(column), [], None), strict=True))
    ]
    load_settings = LoadSettings(TABLE, CONTEXTS, {}, SHAPE, "", NOWHERE)
    (refused,) = fold_group(rows, load_settings)
    assert refused.row is None
    assert [reject["condition"] for reject in refused.rejects] == [condition]


def _value(column: str) -> bytes:
    text = "k" * KEY_BYTES
    source = '{"schema":"public","table":"t","sequence":"[\\"1\\",\\"1\\"]"}'
    return f'{{"op":"c","before":null,"after":{{"{column}":"{text}"}},"source":{source}}}'.encode()


def test_a_state_stays_small_whatever_the_values_are() -> None:
    table = ModelTable()
    table.insert(1, "x" * 20_000)
    table.update_a(1, "y" * 20_000)
    warehouse = Warehouse()
    warehouse.load(table.changes)
    assert len(warehouse.rows[key_of(1)]["_state"]) < 400 < STATE_BYTES

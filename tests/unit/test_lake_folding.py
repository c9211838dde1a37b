"""Current tables, without Spark: any cut and order of the changes leaves the rows that one fold gives."""

from __future__ import annotations

import datetime as dt
import json
import random
from decimal import Decimal
from typing import Any

import pytest

from lake.history.current import TableFold
from lake.tables.folding import FoldSettings, fold_group, restored
from lake.tables.kinds import wider
from lake.tables.observed_types import ObservedTypes
from lake.tables.shape import TableShape, evolved
from lake.tables.typed import UnfitError, back, into, same
from schemas.changes import Changes
from schemas.records import Record
from schemas.tables import TableConfig
from tests.recorded import CONTEXT, KEYS, records
from transforms.envelopes.decode import decode, seen_schema
from transforms.fold import RowState

TABLES = ("inv.items", "inv.items_full", "inv.order_lines", "inv.Mixed Case")


def of_table(name: str, table: str) -> list[Record]:
    decoded = ((r, decode(r, CONTEXT)) for r in records(name))
    return [r for r, d in decoded if isinstance(d, Changes) and d.changes[0].table == table]


def shape_of(read: list[Record], table: str) -> TableShape:
    kinds: dict[str, list[str]] = {}
    for record in read:
        seen = seen_schema(record, CONTEXT)
        for column, kind in (seen.columns if seen else {}).items():
            if kind != "any":
                kinds.setdefault(column, []).append(kind)
    config = TableConfig(table=table, keys=KEYS[table])
    names = {n for r in read for c in changes(r) for n in c.columns}
    return evolved(TableShape(), config, ObservedTypes(kinds), sorted(names))


def changes(record: Record) -> Any:
    decoded = decode(record, CONTEXT)
    return decoded.changes if isinstance(decoded, Changes) else ()


def input_row(record: Record) -> dict[str, Any]:
    time = record.timestamp_ms
    return record._asdict() | {
        "_from": None,
        "_source": "kb",
        "_key": None,
        "headers": [{"key": k, "value": v} for k, v in record.headers],
        "timestamp": None if time is None else dt.datetime.fromtimestamp(time / 1000, dt.UTC),
    }


def merged(batches: list[list[Record]], shape: TableShape, table: str) -> dict[str, RowState]:
    """What batches leave in a table and its tombstones, each as its own merge would."""
    stored: dict[str, dict[str, Any]] = {}
    tombstones: list[dict[str, Any]] = []
    truncated = ""
    for batch in batches:
        truncations = [c.sequence for r in batch for c in changes(r) if c.op == "t"]
        truncated = max([truncated, *truncations])
        settings = FoldSettings(table, {"kb": CONTEXT}, shape, shape, {}, truncated)
        for row in list(fold_group([*stored.values(), *tombstones, *map(input_row, batch)], settings)):
            if row["_tombstone"]:
                tombstone = {"_from": "tombstone", "_key": row["_key"], "_state": row["_tombstone"]}
                tombstones.append(tombstone | {"_moves": row["_moves"]})
            if row["_purge"]:
                tombstones = [g for g in tombstones if g["_key"] != row["_key"] or g["_moves"]]
            stored.pop(row["_key"], None)
            if row["_live"]:
                stored[row["_key"]] = row | {"_from": "table"}
    return {key: restored(row, shape) for key, row in stored.items()}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", ["pg15_plain", "pg15_schemas", "pg15_strmode"])
def test_any_cut_order_and_repeat_leaves_the_rows_of_one_fold(name: str, table: str) -> None:
    read = of_table(name, table)
    shape = shape_of(read, table)
    whole = TableFold()
    for record in read:
        for change in changes(record):
            whole.add(change)
    expected = {key: state.values() for key, state in whole.live().items()}
    rng = random.Random(7)
    for size in (1, 3, len(read)):
        history = [*read, *rng.sample(read, len(read) // 2)]
        rng.shuffle(history)
        batches = [history[i : i + size] for i in range(0, len(history), size)]
        states = merged(batches, shape, table)
        assert {key: state.values() for key, state in states.items()} == expected


def as_kept(row: dict[str, Any], shape: TableShape) -> dict[str, Any]:
    """A row with its state as it is read again: the order of its columns says nothing."""
    return row | {"_state": restored(row, shape)} if row.get("_live") else row


@pytest.mark.parametrize("name", ["pg15_plain", "pg15_schemas", "pg15_strmode"])
def test_what_is_folded_without_stored_values_is_what_these_would_give(name: str) -> None:
    rng, decided = random.Random(7), set[bool]()
    for table in TABLES:
        read = of_table(name, table)
        shape = shape_of(read, table)
        settings = FoldSettings(table, {"kb": CONTEXT}, shape, shape, {})
        keys = {change.key for record in read for change in changes(record) if change.op != "t"}
        for key in sorted(keys) * 12:
            history = [record for record in read if key in {change.key for change in changes(record)}]
            rng.shuffle(history)
            written = list(fold_group(map(input_row, history[: rng.randrange(len(history) + 1)]), settings))
            stored = [row | {"_from": "table"} for row in written if row["_live"]]
            looked = [row | {"_from": "look", "_row": None} for row in stored]
            others = [
                {"_from": "tombstone", "_key": r["_key"], "_state": r["_tombstone"]} for r in written if r["_tombstone"]
            ]
            others += map(input_row, rng.sample(history, rng.randrange(len(history) + 1)))
            whole, without = (
                [as_kept(row, shape) for row in fold_group([*rows, *others], settings)] for rows in (stored, looked)
            )
            assert without in (whole, [{"_key": "", "_unread": True}])
            if stored and whole:
                decided.add(without == whole)
    assert decided == {True, False}


def test_a_batch_merged_again_writes_nothing() -> None:
    read = of_table("pg15_schemas", "inv.items")
    shape = shape_of(read, "inv.items")
    settings = FoldSettings("inv.items", {"kb": CONTEXT}, shape, shape, {})
    written = list(fold_group(map(input_row, read), settings))
    assert not any(row.get("_rejects") for row in written)
    stored = [row | {"_from": "table"} for row in written if row["_live"]]
    stored += [{"_from": "tombstone", "_key": r["_key"], "_state": r["_tombstone"]} for r in written if r["_tombstone"]]
    assert list(fold_group([*stored, *map(input_row, read)], settings)) == []


def test_value_that_does_not_fit_is_told_once_and_kept_in_state() -> None:
    value = b'{"op":"c","source":{"schema":"inv","table":"items","lsn":7},"after":{"id":1,"amount":"secret"}}'
    config = TableConfig(table="inv.items", keys=("id",), columns={"amount": "decimal(10,2)"})
    shape = evolved(TableShape(), config, ObservedTypes({"id": ["int"]}))
    settings = FoldSettings("inv.items", {"kb": CONTEXT}, shape, shape, {})
    record = Record("t", "0", "1", None, value)
    (row,) = fold_group([input_row(record)], settings)
    (reject,) = row["_rejects"]
    assert reject["column"] == "amount"
    assert "secret" not in str(reject)
    assert row["_row"] == {"id": 1}
    assert restored(row, shape).values() == {"id": 1, "amount": "secret"}
    assert list(fold_group([row | {"_from": "table"}, input_row(record)], settings)) == []


def test_a_row_that_a_tombstone_still_speaks_of_keeps_its_columns() -> None:
    read = of_table("pg15_schemas", "inv.items_full")
    shape = shape_of(read, "inv.items_full")
    settings = FoldSettings("inv.items_full", {"kb": CONTEXT}, shape, shape, {})
    stored = [r | {"_from": "table"} for r in fold_group(map(input_row, read), settings) if r["_live"]]
    carried = {"s": "", "v": {"name": "carried"}, "r": {"name": "0" * 104 + "!" + "0" * 104}}
    tombstone = {"_from": "tombstone", "_key": stored[0]["_key"], "_state": json.dumps(carried)}
    (row,) = fold_group([stored[0], tombstone], settings)
    assert row["_purge"]
    assert row["_row"] == stored[0]["_row"]
    assert row["_state"] == stored[0]["_state"]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (2**31 - 1, "int"),
        (Decimal("1.10"), "decimal(10,2)"),
        ("NaN", "double"),
        (Decimal("3.14"), "float"),
        ("2024-02-29T07:04:56.789012Z", "timestamp"),
        ("2024-02-29T12:34:56", "timestamp_ntz"),
        ("0001-01-01", "date"),
        ("AAE=", "binary"),
        ([1, None], "array<int>"),
    ],
)
def test_what_fits_comes_back_digit_for_digit(value: Any, kind: str) -> None:
    assert same(back(into(value, kind), kind), value)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (2**31, "int"),
        (True, "int"),
        (Decimal("1.123"), "decimal(10,2)"),
        (Decimal("1E+999999999"), "decimal(38,0)"),
        (Decimal("1E+400"), "double"),
        ("infinity", "timestamp"),
        ("2024-02-29T12:34:56", "timestamp"),
        ("x", "boolean"),
        ("%%", "binary"),
    ],
)
def test_what_does_not_fit_is_refused_and_never_rounded(value: Any, kind: str) -> None:
    with pytest.raises(UnfitError):
        into(value, kind)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("int", "bigint", "bigint"),
        ("int", "decimal(5,2)", "decimal(12,2)"),
        ("decimal(38,0)", "decimal(38,10)", "string"),
        ("float", "double", "double"),
        ("int", "double", "double"),
        ("int", "float", "double"),
        ("bigint", "double", "string"),
        ("date", "int", "string"),
    ],
)
def test_types_only_get_wider(one: str, other: str, both: str) -> None:
    assert wider(one, other) == wider(other, one) == both


def test_columns_keep_their_place_and_get_names_delta_can_tell_apart() -> None:
    config = TableConfig(table="a.b", keys=("id",))
    first = evolved(TableShape(), config, ObservedTypes({"Name": ["text"]}))
    second = evolved(first, config, ObservedTypes({"Name": ["text"], "name": ["int"], "_op": ["text"]}))
    assert [(c.source, c.name) for c in second.columns] == [("Name", "Name"), ("name", "name_2"), ("_op", "_op_2")]
    assert not first.needs_mapping
    assert evolved(first, config, ObservedTypes(), ["Some Col"]).needs_mapping


def test_row_stored_before_its_types_were_announced_gets_them_in_canonical_form() -> None:
    value = (
        b'{"op":"c","source":{"schema":"inv","table":"items","lsn":7},'
        b'"after":{"id":1,"raw":"0x00ff","at":"2026-02-03T04:05:06Z","price":"1.10","name":"0x00ff"}}'
    )
    config = TableConfig(table="inv.items", keys=("id",))
    untyped = evolved(TableShape(), config, ObservedTypes(), ["id", "raw", "at", "price", "name"])
    record = Record("t", "0", "1", None, value)
    (row,) = fold_group([input_row(record)], FoldSettings("inv.items", {"kb": CONTEXT}, untyped, untyped, {}))
    kinds = {"id": "int", "raw": "bytes", "at": "timestamp", "price": "decimal(10,2)", "name": "text"}
    typed = evolved(untyped, config, ObservedTypes({name: [kind] for name, kind in kinds.items()}))
    settings = FoldSettings("inv.items", {"kb": CONTEXT}, untyped, typed, kinds)
    (again,) = fold_group([row | {"_from": "table"}], settings)
    assert again["_rejects"] is None
    at = dt.datetime.fromisoformat("2026-02-03T04:05:06")
    assert again["_row"] == {"id": 1, "raw": b"\x00\xff", "at": at, "price": Decimal("1.10"), "name": "0x00ff"}

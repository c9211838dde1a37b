"""Debezium's records of MySQL, MariaDB, SQL Server and Oracle decode to what they mean: names, key changes, what is left out."""

from __future__ import annotations

import dataclasses
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from schemas.changes import Change, Changes, Ignored, Reject
from schemas.records import Record
from tests.recorded import CONTEXT, compact, records
from transforms.context import DecodeContext, TableContext
from transforms.envelopes.decode import decode
from transforms.fold import Rows, RowState, apply, truncated_at

ORACLE = {"connector": "oracle", "db": "ORCLPDB1", "schema": "HR", "table": "STAFF", "commit_scn": "900", "txSeq": 1}
SQLSERVER = {
    "connector": "sqlserver", "db": "shop", "schema": "dbo", "table": "items", "commit_lsn": "00000027:00000ac0:0002",
    "change_lsn": "00000027:00000ac0:0001", "event_serial_no": 1,
}  # fmt: skip
MYSQL = {"connector": "mysql", "db": "shop", "table": "items", "file": "binlog.000002", "pos": 40, "row": 0}


def of(*tables: str, **more: Any) -> DecodeContext:
    return DecodeContext("debezium", {name: TableContext(name, ("ID",)) for name in tables}, **more)


def record(source: dict[str, Any], op: str = "c", row: dict[str, Any] | None = None, **more: Any) -> Record:
    side = "before" if op == "d" else "after"
    value = {"op": op, "before": None, "after": None, "source": {"name": "cap"} | source} | more
    return Record("cap.t", "0", "3", None, compact(value | {side: row or {"ID": 1}} if op != "t" else value))


def only(decoded: Any) -> Change:
    assert isinstance(decoded, Changes), decoded
    (change,) = decoded.changes
    return change


def test_each_engines_tables_are_named_as_it_names_them() -> None:
    context = of("shop.items", "shop.dbo.items", "other.dbo.items", "HR.STAFF")
    read = [MYSQL, MYSQL | {"connector": "mariadb"}, SQLSERVER, SQLSERVER | {"db": "other"}, ORACLE]
    assert [only(decode(record(source), context)).table for source in read] == [
        "shop.items", "shop.items", "shop.dbo.items", "other.dbo.items", "HR.STAFF",
    ]  # fmt: skip


def test_tables_of_two_databases_of_a_sql_server_are_never_one() -> None:
    context = of("dbo.items", "shop.dbo.items")
    assert decode(record(SQLSERVER | {"db": "other"}), context) == Ignored("table not configured", "other.dbo.items")


def test_an_oracle_table_may_be_named_with_its_database() -> None:
    assert only(decode(record(ORACLE), of("ORCLPDB1.HR.STAFF", "HR.STAFF"))).table == "ORCLPDB1.HR.STAFF"
    foreign = decode(record(ORACLE), of("HR.STAFF", others=frozenset({"ORCLPDB1.HR.STAFF"})))
    assert isinstance(foreign, Reject)
    assert foreign.condition == "OTHER_SOURCE"
    assert isinstance(decode(record(ORACLE), of("hr.staff")), Ignored)


@pytest.mark.covers(("mysql", "oracle"), "debezium", "truncate", "documented")
@pytest.mark.parametrize("source", [MYSQL, ORACLE], ids=["mysql", "oracle"])
def test_a_truncation_empties_the_table_it_names(source: dict[str, Any]) -> None:
    change = only(decode(record(source, "t"), of("shop.items", "HR.STAFF")))
    assert (change.op, change.key) == ("t", "")
    named = only(decode(record(ORACLE, "t"), of("ORCLPDB1.HR.STAFF")))
    assert named.table == "ORCLPDB1.HR.STAFF"


PLACEHOLDER = "__debezium_unavailable_value"


@pytest.mark.covers("oracle", "debezium", ("large value", "key change"), "documented")
@pytest.mark.parametrize("placeholder", [PLACEHOLDER, "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="], ids=["clob", "blob"])
def test_an_unchanged_lob_of_oracle_keeps_its_value(placeholder: str) -> None:
    context, table = of("HR.STAFF"), Rows()
    inserted = record(ORACLE, "c", {"ID": 1, "NAME": "a", "BODY": "TEXT"})
    updated = record(ORACLE | {"commit_scn": "901"}, "u", {"ID": 1, "NAME": "b", "BODY": placeholder})
    moved = record(ORACLE | {"commit_scn": "902"}, "c", {"ID": 2, "NAME": "b", "BODY": placeholder})
    moved = moved._replace(headers=(("__debezium.oldkey", b'{"ID":1}'),))
    gone = record(ORACLE | {"commit_scn": "902"}, "d", {"ID": 1, "NAME": "b", "BODY": placeholder})
    gone = gone._replace(headers=(("__debezium.newkey", b'{"ID":2}'),))
    for event in (inserted, updated, gone, moved):
        apply(table, only(decode(event, context)))
    live = {key: state.values() for key, state in table.items() if state.exists}
    assert live == {'{"ID":2}': {"ID": 2, "NAME": "b", "BODY": "TEXT"}}


@pytest.mark.covers("sqlserver", "debezium", "key change", "documented")
def test_a_key_that_sql_server_changes_is_a_delete_and_an_insert() -> None:
    """Its change tables have two rows with one change_lsn, numbered 1 and 2, and the connector sends no headers."""
    rows = Rows()
    for event in (
        record(SQLSERVER, "d", {"ID": 1, "N": 5}),
        record(SQLSERVER | {"event_serial_no": 2}, "c", {"ID": 2, "N": 5}),
    ):
        apply(rows, only(decode(event, of("shop.dbo.items"))))
    assert {key: state.exists for key, state in rows.items()} == {'{"ID":1}': False, '{"ID":2}': True}


def partial(op: str) -> Record:
    """A record that lacks a column its schema block announces: a row image that is not full."""
    fields = [{"field": "ID", "type": "int32"}, {"field": "N", "type": "int32"}, {"field": "BODY", "type": "string"}]
    block = {"type": "struct", "fields": [{"field": "after", "type": "struct", "fields": fields}]}
    payload = {"op": op, "before": {"ID": 1}, "after": {"ID": 1, "N": 6}, "source": MYSQL}
    return Record("cap.t", "0", "4", None, compact({"schema": block, "payload": payload}))


@pytest.mark.covers("mysql", "debezium", "large value", "documented")
@pytest.mark.parametrize("op", ["c", "u", "r"])
def test_a_column_that_is_announced_and_missing_is_unresolved_and_never_null(op: str) -> None:
    change = only(decode(partial(op), of("shop.items")))
    assert change.columns == {"ID": 1, "N": 6}
    assert (change.complete, change.unavailable) == (False, ("BODY",))
    rows = Rows()
    older = MYSQL | {"pos": 20}
    apply(rows, only(decode(record(older, "c", {"ID": 1, "N": 5, "BODY": "kept"}), of("shop.items"))))
    apply(rows, change)
    assert rows['{"ID":1}'].values() == {"ID": 1, "N": 6, "BODY": "kept"}


def folded(name: str) -> tuple[dict[str, dict[str, RowState]], Counter[str]]:
    rows: dict[str, Rows] = {}
    truncated: dict[str, str] = {}
    ignored = Counter[str]()
    for event in records(name):
        decoded = decode(event, CONTEXT)
        assert not isinstance(decoded, Reject), decoded
        if isinstance(decoded, Ignored):
            ignored[decoded.reason] += 1
            continue
        assert not decoded.unfit
        for change in decoded.changes:
            if change.op == "t":
                truncated[change.table] = max(truncated.get(change.table, ""), change.sequence)
            else:
                apply(rows.setdefault(change.table, Rows()), change)
    states = {t: {k: truncated_at(s, truncated.get(t, "")) for k, s in kept.items()} for t, kept in rows.items()}
    return {t: {k: s for k, s in kept.items() if s.exists} for t, kept in states.items()}, ignored


@pytest.mark.covers("mariadb", "debezium", ("snapshot", "delete", "key change", "truncate", "drift"), "recorded")
@pytest.mark.parametrize("name", ["mariadb1011_plain", "mariadb1011_schemas"])
def test_recorded_histories_of_mariadb_fold_to_the_rows_it_had(name: str) -> None:
    live, ignored = folded(name)
    assert ignored == {"transaction marker": 81, "schema change": 23, "signal": 19, "tombstone": 6, "heartbeat": 2}
    assert live["shop.items"].keys() == {'{"id":3}', '{"id":4}', '{"id":5}', '{"id":100}'}
    assert not live["shop.order_lines"]
    assert live["shop.Mixed Case"]['{"Id":1}'].values() == {"Id": 1, "Some Col": "bye"}
    moved = live["shop.items"]['{"id":100}']
    assert (moved.values()["name"], moved.values()["body"]) == ("renamed", "short body")
    gone = {"added_col", "renamed_col"}  # dropped and renamed while the history was recorded
    assert {n for s in live["shop.items"].values() for n in s.unresolved(list(s.columns))} == gone


@pytest.mark.covers("mariadb", "debezium", "type", "recorded")
def test_mariadbs_values_are_exact_where_their_types_are_announced() -> None:
    row = folded("mariadb1011_schemas")[0]["shop.items"]['{"id":100}'].values()
    assert (row["i"], row["ui"], row["ti"]) == (-(2**31), 2**32 - 1, -128)
    assert (row["amount"], row["any_num"]) == (Decimal("1234567890.12"), Decimal("3.1415926535"))
    assert (row["t"], row["t6"], row["d"], row["y"]) == ("23:59:59", "-12:34:56.789012", "2024-02-29", 2024)
    assert (row["dt6"], row["ts"]) == ("2024-02-29T12:34:56.789012", "2024-02-29T12:34:56.789012Z")
    assert (row["bits"], row["m"], row["st"], row["raw"]) == ("10101", "happy", "a,c", "AAH+/w==")


def test_epochs_of_a_new_server_rank_above_its_lower_binlog() -> None:
    context = dataclasses.replace(of("shop.items"), epoch_starts_us=(6_000_000,))
    old = only(decode(record(MYSQL | {"ts_us": 5_000_000}), context))
    new = only(decode(record(MYSQL | {"file": "binlog.000001", "ts_us": 6_000_000}), context))
    assert old.sequence < new.sequence

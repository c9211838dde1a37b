"""The sequences of each engine's changes have the order in which the engine made them, whatever a capture does on the way."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.changes import Change, Changes, Reject
from schemas.records import Record
from tests.recorded import CONTEXT, compact, records
from transforms.context import DecodeContext, TableContext
from transforms.envelopes.decode import decode
from transforms.positions import source_position
from transforms.positions.sequence import SOURCE_DIGITS, NoPositionError

STEPS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 10**6), st.integers(1, 4)), min_size=1, max_size=30)
"""Of each event: how much further the log's file, the position in it, and how many rows it has."""


def binlog(connector: str, first_file: int, steps: list[tuple[int, int, int]]) -> list[dict[str, Any]]:
    """A log in the order it was written, its files numbered as the servers do: six digits, more when they run out."""
    file, at, sources = first_file, 4, []
    for files, further, rows in steps:
        file, at = file + files, further + (0 if files else at)
        sources += [
            {"connector": connector, "file": f"log.bin.{file:06d}", "pos": at, "row": row} for row in range(rows)
        ]
    return sources


def commits(first_lsn: int, steps: list[tuple[int, int, int]]) -> list[dict[str, Any]]:
    """SQL Server's change tables in the order they are read: by commit, by change, numbered in each change."""
    commit, sources = first_lsn, []
    for again, further, rows in steps:
        commit += again * further + 1
        for change in range(again + 1):
            lsn = commit - 5 * further + change
            sources += [
                {
                    "connector": "sqlserver",
                    "commit_lsn": lsn_text(commit),
                    "change_lsn": lsn_text(lsn),
                    "event_serial_no": n,
                }
                for n in range(1, rows + 1)
            ]
    return sources


def lsn_text(number: int) -> str:
    digits = f"{number:020x}"
    return f"{digits[:8]}:{digits[8:16]}:{digits[16:]}"


def mined(form: str, first_scn: int, steps: list[tuple[int, int, int]]) -> list[dict[str, Any]]:
    """Oracle's transactions in the order of their commits; the changes of one may be older than the commit before."""
    commit, sources = first_scn, []
    for again, further, rows in steps:
        commit += further
        scn = commit - 3 * further
        for number in range(again + rows):
            at: dict[str, Any] = {
                "connector": "oracle",
                "commit_scn": str(commit),
                "scn": str(scn + number // 2),
                "ssn": 0,
            }
            if form == "txSeq":
                at["txSeq"] = number + 1
            elif form == "redo":
                at |= {
                    "rs_id": f" 0x{further:06x}.{number // 3:08x}.{8 * (number % 3):04x} ",
                    "ssn": number % 2 + number // 2,
                }
            else:
                place = f"{commit:016x}0000000100000001{scn + number // 2:016x}{number:08x}0000000102"
                at |= {"lcr_position": place}
            sources.append(at)
    return sources


def log_of(engine: str, start: int, steps: list[tuple[int, int, int]]) -> list[dict[str, Any]]:
    if engine in {"mysql", "mariadb"}:
        return binlog(engine, start, steps)
    return (
        commits((start << 32) + 10**8, steps) if engine == "sqlserver" else mined(engine, (start << 24) + 10**8, steps)
    )


ENGINES = ("mysql", "mariadb", "sqlserver", "txSeq", "redo", "lcr")


@pytest.mark.parametrize("engine", ENGINES)
@given(start=st.sampled_from([1, 8, 98, 999_998, 9_999_999]), steps=STEPS)
def test_the_order_of_sequences_is_the_order_of_the_log(
    engine: str, start: int, steps: list[tuple[int, int, int]]
) -> None:
    sources = log_of(engine, start, steps)
    positions = [source_position(at) for at in sources]
    assert {len(position) for position in positions} == {SOURCE_DIGITS}
    assert positions == sorted(positions)
    assert len(set(positions)) == len(positions)


def snapshot_row(at: dict[str, Any], engine: str) -> dict[str, Any]:
    """The source of a row read at the place of the log where `at` was the next change, or the newest one shown."""
    if engine in {"mysql", "mariadb"}:
        return at | {"snapshot": "true", "row": 0, "pos": at["pos"] - 1}
    if engine == "sqlserver":
        return {"connector": "sqlserver", "snapshot": "last", "commit_lsn": at["commit_lsn"], "change_lsn": None}
    return {"connector": "oracle", "snapshot": "first", "scn": at["commit_scn"], "commit_scn": None}


def decoded(at: dict[str, Any], offset: int, op: str) -> Change:
    names = {"db": "SHOP", "schema": "INV", "table": "ITEMS", "ts_us": 5_000_000}
    names = names if at["connector"] in {"sqlserver", "oracle"} else names | {"schema": None}
    value = compact({"op": op, "before": None, "after": {"ID": 1, "N": offset}, "source": names | at})
    decoded = decode(Record("t", "0", str(offset), None, value), ITEMS)
    assert isinstance(decoded, Changes), decoded
    return decoded.changes[0]


NAMES = ("SHOP.ITEMS", "SHOP.INV.ITEMS")
ITEMS = DecodeContext("debezium", {name: TableContext(name, ("ID",)) for name in NAMES})


@pytest.mark.covers(("mysql", "mariadb", "sqlserver", "oracle"), "debezium", "snapshot", "documented")
@pytest.mark.parametrize("engine", ENGINES)
@given(start=st.sampled_from([1, 999_998]), steps=STEPS, data=st.data())
def test_a_snapshot_between_changes_and_a_restart_leave_the_newest_value(
    engine: str, start: int, steps: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    """A snapshot reads what the log's last change before it left; the changes after a restart come once more."""
    log = log_of(engine, start, steps)
    shown = data.draw(st.integers(0, len(log) - 1))
    again = data.draw(st.integers(0, len(log) - 1))
    first = snapshot_row(log[shown], engine)
    sent = [("r", first), *(("u", at) for at in log[shown:]), *(("u", at) for at in log[again:])]
    changes = [decoded(at, offset, op) for offset, (op, at) in enumerate(sent)]
    assert min(changes, key=lambda change: change.sequence).op == "r" or again < shown
    assert max(changes, key=lambda change: change.sequence).columns["N"] == len(sent) - 1


@pytest.mark.covers("mariadb", "debezium", ("snapshot", "delete", "key change", "truncate"), "recorded")
@pytest.mark.parametrize("name", ["mariadb1011_plain", "mariadb1011_schemas"])
def test_a_recorded_binlog_ranks_in_the_order_of_its_topics(name: str) -> None:
    """Snapshot, changes, key changes, truncates and an incremental snapshot as MariaDB 10.11 and Debezium 3.5 gave them."""
    ranked: dict[str, list[str]] = defaultdict(list)
    for record in records(name):
        decoded = decode(record, CONTEXT)
        for change in decoded.changes if isinstance(decoded, Changes) else ():
            ranked[change.table].append(change.sequence)
    assert {table: len(sequences) for table, sequences in ranked.items()} == {
        "shop.items": 24, "shop.order_lines": 9, "shop.Mixed Case": 2, "shop.late": 1, "shop.later": 1,
    }  # fmt: skip
    assert all(sequences == sorted(sequences) for sequences in ranked.values())


def test_transaction_that_a_newer_connector_sends_again_replaces_what_the_older_sent() -> None:
    older = mined("redo", 10**9, [(0, 5, 3)])
    newer = mined("txSeq", 10**9, [(0, 5, 3)])
    assert max(map(source_position, older)) < min(map(source_position, newer))
    assert max(map(source_position, newer)) < source_position(mined("redo", 10**9 + 1, [(0, 5, 1)])[0])


def test_an_lsn_compares_as_a_number_in_upper_and_lower_case() -> None:
    low, high = ({"connector": "sqlserver", "commit_lsn": f"00000027:00000{digit}:0002"} for digit in ("AC9", "aca"))
    assert source_position(low) < source_position(high)


def test_an_event_without_its_number_ranks_below_those_that_have_one() -> None:
    at = {"connector": "sqlserver", "commit_lsn": "00000027:00000ac0:0002", "change_lsn": "00000027:00000ab0:0003"}
    missing, first = source_position(at), source_position(at | {"event_serial_no": 1})
    assert source_position({**at, "change_lsn": None}) < missing < first


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ({"connector": "mysql", "file": "", "pos": 0}, "``"),
        ({"connector": "mysql", "file": "binlog.000001", "pos": None}, "no pos"),
        ({"connector": "mariadb", "file": "binlog-000003.ibb", "pos": 4}, "`a-9.a`, 17 characters"),
        ({"connector": "mariadb", "file": None, "gtid": "0-7-97"}, "nothing"),
        ({"connector": "sqlserver"}, "commit_lsn is nothing"),
        ({"connector": "sqlserver", "commit_lsn": "NULL"}, "`a`"),
        ({"connector": "sqlserver", "commit_lsn": "0027:0ac0:0002"}, "`9:9a9:9`"),
        ({"connector": "sqlserver", "commit_lsn": "0" * 8 + ":00000ac0:0002", "change_lsn": "secret text"}, "`a a`"),
        ({"connector": "sqlserver", "commit_lsn": "0" * 8 + ":00000ac0:0002", "event_serial_no": 2**32}, "32 bits"),
        ({"connector": "oracle", "scn": "12", "snapshot": "false"}, "neither commit_scn nor lcr_position"),
        ({"connector": "oracle", "scn": "12"}, "neither"),
        ({"connector": "oracle", "commit_scn": "12", "scn": "11"}, "rs_id is nothing"),
        ({"connector": "oracle", "commit_scn": "12", "rs_id": "0x1.2", "ssn": 0}, "`9a9.9`"),
        ({"connector": "oracle", "commit_scn": "12", "rs_id": "0xffffffff.00000001.0010", "ssn": 0}, "out of range"),
        ({"connector": "oracle", "commit_scn": "-1", "txSeq": 1}, "`-9`"),
        ({"connector": "oracle", "commit_scn": 12, "txSeq": 1}, "of type int"),
        ({"connector": "oracle", "commit_scn": "12", "txSeq": -1}, "63 bits"),
        ({"connector": "oracle", "commit_scn": "12", "scn": "11", "lcr_position": "00" * 33}, "66 characters"),
        ({"connector": "oracle", "scn": "11", "lcr_position": "000000000000000c"}, "16 characters"),
        ({"connector": "oracle", "snapshot": "true", "scn": None}, "nothing"),
    ],
)  # fmt: skip
def test_an_unknown_form_is_rejected_with_what_was_seen(source: dict[str, Any], shown: str) -> None:
    with pytest.raises(NoPositionError) as raised:
        source_position(source)
    assert shown in str(raised.value)
    assert "secret" not in str(raised.value)
    names = {"db": "SHOP", "schema": "INV", "table": "ITEMS"}
    names = names if source["connector"] in {"sqlserver", "oracle"} else {"db": "SHOP", "table": "ITEMS"}
    value = compact({"op": "c", "after": {"ID": 1}, "source": names | source})
    decoded = decode(Record("t", "0", "1", None, value), ITEMS)
    assert isinstance(decoded, Reject)
    assert decoded.condition == "NO_SEQUENCE"
    assert shown in decoded.message

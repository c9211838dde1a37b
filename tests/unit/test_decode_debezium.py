"""Debezium's records decode to what they mean."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from schemas.changes import Change, Changes, Ignored, Reject
from schemas.records import Record
from tests.recorded import CONTEXT, compact, records
from transforms.context import TableContext
from transforms.envelopes.connect import RowSchema, SchemaBlocks
from transforms.envelopes.decode import decode
from transforms.fold import Rows, apply, truncated_at

SCHEMA = RowSchema("s", {}, {})
SOURCE = {"connector": "postgresql", "db": "shop", "schema": "inv", "table": "items", "lsn": 7, "ts_us": 5_000_000}


def record(value: Any, **fields: Any) -> Record:
    data = value if isinstance(value, (bytes, type(None))) else compact(value)
    return Record(**{"stream": "t", "partition": "0", "position": "3", "key": None, "value": data} | fields)


def event(op: str = "c", after: Any = None, source: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"op": op, "after": after, "before": None, "source": SOURCE | (source or {})} | more


def one(value: Any, **fields: Any) -> Change:
    decoded = decode(record(value, **fields), CONTEXT)
    assert isinstance(decoded, Changes), decoded
    (change,) = decoded.changes
    return change


def rejected(value: Any, **fields: Any) -> Reject:
    decoded = decode(record(value, **fields), CONTEXT)
    assert isinstance(decoded, Reject), decoded
    return decoded


@pytest.mark.covers(
    "postgresql", "debezium", ("snapshot", "delete", "key change", "truncate", "large value", "drift"), "recorded"
)
@pytest.mark.parametrize("name", ["pg15_plain", "pg15_schemas", "pg15_strmode"])
def test_every_recorded_event_is_a_change_or_a_known_ignore(name: str) -> None:
    decoded = [decode(r, CONTEXT) for r in records(name)]
    reasons = Counter(d.reason for d in decoded if isinstance(d, Ignored))
    assert not [d for d in decoded if isinstance(d, Reject)]
    assert sum(isinstance(d, Changes) for d in decoded) == 52
    assert reasons["transaction marker"] == 114
    assert reasons["tombstone"] == 10
    assert reasons["heartbeat"] == 3


@pytest.mark.covers(
    "postgresql", "debezium", ("snapshot", "delete", "key change", "truncate", "large value", "drift"), "recorded"
)
@pytest.mark.parametrize("name", ["pg15_plain", "pg15_schemas", "pg15_strmode"])
def test_recorded_histories_fold_to_whole_rows(name: str) -> None:
    rows: dict[str, Rows] = {}
    truncated: dict[str, str] = {}
    for r in records(name):
        decoded = decode(r, CONTEXT)
        for change in decoded.changes if isinstance(decoded, Changes) else ():
            if change.op == "t":
                truncated[change.table] = max(truncated.get(change.table, ""), change.sequence)
            else:
                apply(rows.setdefault(change.table, Rows()), change)
    states = {t: {k: truncated_at(s, truncated.get(t, "")) for k, s in rs.items()} for t, rs in rows.items()}
    live = {t: {k: s for k, s in rs.items() if s.exists} for t, rs in states.items()}
    assert live["inv.items"].keys() == {'{"id":4}', '{"id":5}', '{"id":100}', '{"id":103}'}
    assert live["inv.items_full"].keys() == live["inv.items"].keys()
    assert not live["inv.order_lines"]
    assert not live["inv.Mixed Case"]
    moved = live["inv.items"]['{"id":103}'].values()
    assert moved["name"] == "pk+toast"
    assert moved["body"].startswith("lorem0-0 ")
    gone = {"added_col", "renamed_col"}  # dropped while the history was recorded
    assert {n for s in live["inv.items"].values() for n in s.unresolved(list(s.columns))} == gone
    assert not any(s.unresolved(list(s.columns)) for t, rs in live.items() if t != "inv.items" for s in rs.values())


@pytest.mark.covers("postgresql", "debezium", "type", "recorded")
def test_embedded_schemas_type_every_value() -> None:
    decoded = (decode(r, CONTEXT) for r in records("pg15_schemas"))
    changes = [change for d in decoded if isinstance(d, Changes) for change in d.changes]
    first = next(change for change in changes if change.table == "inv.items")
    row = first.columns
    assert row["amount"] == Decimal("1234567890.12")
    assert row["any_num"] == Decimal("3.14159265358979323846264338327950288")
    assert (row["d"], row["t"], row["ts"]) == ("2024-02-29", "23:59:59.123456", "2024-02-29T12:34:56.789012")
    assert (row["tstz"], row["bits"], row["raw"]) == ("2024-02-29T07:04:56.789012Z", "101", "AAH+/w==")
    assert row["big"] == 9223372036854775807
    assert row["tags"] == ["red", "with,comma", 'q"uote', None]


@pytest.mark.covers("postgresql", "debezium", "type", "recorded")
def test_edges_of_times_and_numbers_keep_their_meaning() -> None:
    rows = [d.changes[0].columns for r in records("pg15_schemas_edge") if isinstance(d := decode(r, CONTEXT), Changes)]
    assert [r["ts"] for r in rows[:3]] == ["infinity", "-infinity", "-0043-03-15T12:00:00"]
    assert [r["d"] for r in rows[:3]] == ["infinity", "-infinity", "-0043-03-15"]
    assert [r["f"] for r in rows[:3]] == ["NaN", "-Infinity", Decimal("0.0")]
    assert rows[1]["n"] == Decimal(10) ** 130


def test_a_known_schema_block_is_skipped_and_gives_the_same() -> None:
    all_records = list(records("pg15_schemas"))
    first = [decode(r, CONTEXT) for r in all_records]
    assert [decode(r, CONTEXT) for r in all_records] == first


@pytest.mark.covers("postgresql", "debezium", "large value", "documented")
@pytest.mark.parametrize(
    ("placeholder"),
    [
        "__debezium_unavailable_value",
        "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==",
        ["__debezium_unavailable_value"],
        list(b"__debezium_unavailable_value"),
        {"__debezium_unavailable_value": "__debezium_unavailable_value"},
    ],
    ids=["text", "bytes", "text[]", "int[]", "hstore"],
)
def test_an_unavailable_value_is_absent(placeholder: Any) -> None:
    change = one(event("u", {"id": 1, "body": placeholder}))
    assert change.columns == {"id": 1}
    assert change.unavailable == ("body",)
    assert not change.complete


def test_numbers_stay_exact() -> None:
    value = b'{"op":"c","after":{"id":1234567890123456789,"a":1.10,"b":1e400,"c":-0.0},"source":%s}' % (
        compact(SOURCE) or b""
    )
    columns = one(value).columns
    assert columns["id"] == 1234567890123456789
    assert str(columns["a"]) == "1.10"
    assert columns["b"] == Decimal("1e400")


@pytest.mark.covers("postgresql", "debezium", "snapshot", "documented")
def test_a_snapshot_row_ranks_by_its_position() -> None:
    snapshot = one(event("r", {"id": 1}, {"sequence": '[null,"50"]'}))
    before = one(event("u", {"id": 1}, {"sequence": '["30","40"]'}))
    after = one(event("u", {"id": 1}, {"sequence": '["50","60"]'}))
    assert before.sequence < snapshot.sequence < after.sequence


def test_transactions_rank_by_commit_not_by_row_position() -> None:
    early_row_late_commit = one(event("u", {"id": 1}, {"sequence": '["120","50"]'}))
    late_row_early_commit = one(event("u", {"id": 1}, {"sequence": '["100","110"]'}))
    assert late_row_early_commit.sequence < early_row_late_commit.sequence


def test_a_missing_last_commit_means_the_row_position() -> None:
    assert one(event("u", {"id": 1}, {"sequence": '[null,"110"]'})).sequence[4:36] == f"{110:016x}{110:016x}"


def test_an_epoch_ranks_above_every_position_before_it() -> None:
    context = dataclasses.replace(CONTEXT, epoch_starts_us=(6_000_000,))
    old = decode(record(event("u", {"id": 1}, {"lsn": 10**15})), context)
    new = decode(record(event("u", {"id": 1}, {"lsn": 1, "ts_us": 6_000_000})), context)
    assert isinstance(old, Changes)
    assert isinstance(new, Changes)
    assert old.changes[0].sequence < new.changes[0].sequence


@pytest.mark.covers("postgresql", "debezium", "key change", "documented")
def test_the_two_halves_of_a_key_change_know_each_other() -> None:
    gone = one(event("d", None, before={"id": 1}), key=b'{"id":1}', headers=(("__debezium.newkey", b'{"id":2}'),))
    here = one(event("c", {"id": 2}), headers=(("__debezium.oldkey", b'{"schema":{},"payload":{"id":1}}'),))
    assert (gone.key, gone.new_key) == ('{"id":1}', '{"id":2}')
    assert (here.key, here.old_key) == ('{"id":2}', '{"id":1}')


@pytest.mark.covers("postgresql", "debezium", "delete", "documented")
def test_a_delete_without_a_before_image_takes_its_key_from_the_record() -> None:
    assert one(event("d", None), key=b'{"schema":{},"payload":{"id":4}}').key == '{"id":4}'


@pytest.mark.parametrize(
    ("value", "condition"),
    [
        (b"{", "MALFORMED_JSON"),
        (b"\xff\xfe", "MALFORMED_JSON"),
        (b"[" * 100_000, "MALFORMED_JSON"),
        (b"7", "NOT_AN_ENVELOPE"),
        ({"id": 1, "title": "flattened"}, "NOT_AN_ENVELOPE"),
        (event("x", {"id": 1}), "NOT_AN_ENVELOPE"),
        (event("c", {"title": "x"}), "NO_KEY"),
        (event("c", {"id": None}), "NO_KEY"),
        (event("u", {"id": "__debezium_unavailable_value"}), "NO_KEY"),
        (event("c", {"id": 1}, {"lsn": None}), "NO_SEQUENCE"),
        (event("c", {"id": 1}, {"sequence": "nonsense"}), "NO_SEQUENCE"),
    ],
)
def test_poison_is_a_reject_that_quotes_nothing(value: Any, condition: str) -> None:
    reject = rejected(value)
    assert reject.condition == condition
    assert "flattened" not in reject.message or "flattened records" in reject.message


def test_odd_but_valid_text_is_kept() -> None:
    value = b'{"op":"c","after":{"id":1,"body":"lone \\ud800 and \\u0000 and %s"},"source":%s}' % (
        b"x" * 9_000_000,
        compact(SOURCE) or b"",
    )
    assert len(one(value).columns["body"]) > 9_000_000


def test_a_record_of_another_sources_table_is_a_reject() -> None:
    context = dataclasses.replace(CONTEXT, others=frozenset({"inv.other"}))
    decoded = decode(record(event("c", {"id": 1}, {"table": "other"})), context)
    assert isinstance(decoded, Reject)
    assert decoded.condition == "OTHER_SOURCE"


def test_declared_types_are_applied_where_none_are_announced() -> None:
    context = dataclasses.replace(
        CONTEXT, tables={"inv.items": TableContext("inv.items", ("id",), {"d": "date", "price": "decimal(10,2)"})}
    )
    decoded = decode(record(event("c", {"id": 1, "d": 19782, "price": "1.10"})), context)
    assert isinstance(decoded, Changes)
    assert decoded.changes[0].columns["d"] == "2024-02-29"
    assert str(decoded.changes[0].columns["price"]) == "1.10"


def test_decoded_record_says_the_same_after_a_round_trip_of_its_json() -> None:
    text = json.dumps(event("c", {"id": 1, "t": "é"}), ensure_ascii=False).encode()
    assert one(text).columns["t"] == "é"


def named(table: str, op: str = "c", topic: str = "shop.inv.items") -> Record:
    at = SOURCE | {"name": "shop", "table": table}
    return record(event(op, {"id": 1} if op != "t" else None, at), stream=topic)


@pytest.mark.parametrize("name", ["items_2026_01", "items"])
def test_a_partition_belongs_to_the_table_of_its_topic(name: str) -> None:
    """debezium#6538: without `publish.via.partition.root` records name the partition."""
    decoded = decode(named(name), CONTEXT)
    assert isinstance(decoded, Changes)
    assert decoded.changes[0].table == "inv.items"


def test_partition_with_topic_of_its_own_belongs_to_table_that_lists_it() -> None:
    stray = named("items_2026_01", topic="shop.inv.items_2026_01")
    assert decode(stray, CONTEXT) == Ignored("table not configured", "inv.items_2026_01")
    listed = dataclasses.replace(
        CONTEXT, tables={"inv.items": TableContext("inv.items", ("id",), partitions=("inv.items_2026_*",))}
    )
    decoded = decode(stray, listed)
    assert isinstance(decoded, Changes)
    assert decoded.changes[0].table == "inv.items"
    assert isinstance(decode(named("items_2027_01", topic="elsewhere"), listed), Ignored)


def test_a_table_of_another_source_is_never_taken_for_a_partition() -> None:
    other = dataclasses.replace(CONTEXT, others=frozenset({"inv.other"}))
    decoded = decode(named("other"), other)
    assert isinstance(decoded, Reject)
    assert decoded.condition == "OTHER_SOURCE"


@pytest.mark.covers("postgresql", "debezium", "truncate", "documented")
def test_a_partition_that_is_truncated_does_not_empty_its_table() -> None:
    decoded = decode(named("items_2026_01", "t"), CONTEXT)
    assert isinstance(decoded, Reject)
    assert (decoded.condition, decoded.table) == ("PARTITION_TRUNCATED", "inv.items")


def test_schema_blocks_are_remembered_by_all_threads_and_bounded() -> None:
    blocks = SchemaBlocks(most_bytes=20_000)

    def run(turn: int) -> None:
        for number in range(300):
            block = b'{"schema":' + b"1" * (1 + (turn * 37 + number) % 500) + b',"payload":'
            assert (blocks.before_payload(block) or (0, SCHEMA))[1] is SCHEMA
            blocks.add(block, SCHEMA)
            assert blocks.bytes <= 20_000

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(16)))
    block = b'{"schema":{"a":1},"payload":'
    blocks.add(block, SCHEMA)
    assert blocks.before_payload(block + b'{"schema":{"a":1},"payload":2}}') == (len(block), SCHEMA)
    assert blocks.before_payload(block[:-1]) is None
    assert blocks.before_payload(b" " + block) is None


def test_a_record_is_looked_up_once_however_many_tables_there_are() -> None:
    class Counted(bytes):
        cut = 0

        def __getitem__(self, at: Any) -> Any:
            Counted.cut += 1
            return super().__getitem__(at)

    blocks = SchemaBlocks()
    for number in range(200):
        blocks.add(b'{"schema":' + b"1" * (4_000 + number) + b',"payload":', SCHEMA)
    assert blocks.before_payload(Counted(b'{"schema":' + b"1" * 4_007 + b',"payload":{}}')) == (4_028, SCHEMA)
    assert Counted.cut == 1

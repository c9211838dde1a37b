"""DMS's records decode to what they mean."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from typing import Any

import pytest

from lake.tables.observed_types import canonical
from schemas.changes import Changes, Ignored, Reject
from schemas.records import Record
from tests.recorded import compact
from transforms.context import DecodeContext, TableContext
from transforms.envelopes.decode import decode
from transforms.envelopes.epochs import record_of_epoch
from transforms.values.types import converter, dms_type

CONTEXT = DecodeContext("dms", {"public.docs": TableContext("public.docs", ("id",))})
POSITION = "00000002/7C007328.2.00000002/7C007328"


def record(value: Any, position: str = "49590338271490256608559692538361571095921575989136588898") -> Record:
    data = value if isinstance(value, bytes) else compact(value)
    return Record("desk", "shardId-000000000000", position, b"public.docs", data)


def event(operation: str, data: Any, **metadata: Any) -> dict[str, Any]:
    common = {"timestamp": "2026-03-01T10:00:01.123456Z", "record-type": "data", "operation": operation}
    cdc = {"stream-position": POSITION, "commit-timestamp": "2026-03-01T10:00:01.000000Z", "transaction-id": 1140}
    names = {"schema-name": "public", "table-name": "docs", "partition-key-type": "schema-table"}
    return {"data": data, "metadata": common | names | ({} if operation == "load" else cdc) | metadata}


def changes(value: Any, **fields: Any) -> Changes:
    decoded = decode(record(value, **fields), CONTEXT)
    assert isinstance(decoded, Changes), decoded
    return decoded


@pytest.mark.parametrize(("operation", "op"), [("load", "r"), ("insert", "c"), ("update", "u"), ("delete", "d")])
def test_operations(operation: str, op: str) -> None:
    (change,) = changes(event(operation, {"id": 42, "title": "x"})).changes
    assert (change.op, change.key, change.table) == (op, '{"id":42}', "public.docs")
    assert change.complete == (operation in {"load", "insert"})


@pytest.mark.covers("postgresql", "dms", "snapshot", "documented")
def test_a_loaded_row_ranks_below_every_change() -> None:
    (loaded,) = changes(event("load", {"id": 1})).changes
    (updated,) = changes(event("update", {"id": 1}), position="1").changes
    assert loaded.sequence < updated.sequence
    assert loaded.commit_time_us == 1772359201123456


def test_stream_positions_compare_as_numbers() -> None:
    (second,) = changes(
        event("update", {"id": 1}, **{"stream-position": "00000002/7C007328.9.00000002/7C007328"})
    ).changes
    (tenth,) = changes(
        event("update", {"id": 1}, **{"stream-position": "00000002/7C007328.10.00000002/7C007328"})
    ).changes
    assert second.sequence < tenth.sequence


@pytest.mark.covers("postgresql", "dms", "key change", "documented")
def test_key_change_is_a_delete_and_an_upsert_that_know_each_other() -> None:
    gone, here = changes(event("update", {"id": 45, "title": "x"}) | {"before-image": {"id": 46}}).changes
    assert (gone.op, gone.key, gone.new_key) == ("d", '{"id":46}', '{"id":45}')
    assert (here.op, here.key, here.old_key) == ("u", '{"id":45}', '{"id":46}')
    assert gone.sequence == here.sequence


def test_an_empty_before_image_is_no_key_change() -> None:
    (change,) = changes(event("update", {"id": 45}) | {"before-image": {}}).changes
    assert change.old_key is None


@pytest.mark.parametrize("operation", ["insert", "delete"])
def test_a_before_image_counts_in_an_update_alone(operation: str) -> None:
    (change,) = changes(
        event(operation, {"id": 45}) | {"before-image": {"id": json.loads("[" * 101 + "]" * 101)}}
    ).changes
    assert (change.key, change.old_key) == ('{"id":45}', None)


def test_an_update_without_a_before_image_hides_whether_it_changed_the_key() -> None:
    (blind,) = changes(event("update", {"id": 45})).changes
    assert blind.hides_old_key
    docs = [event("update", {"id": 45}) | {"before-image": {}}, event("insert", {"id": 45}), event("load", {"id": 45})]
    assert not any(change.hides_old_key for value in docs for change in changes(value).changes)


@pytest.mark.covers("postgresql", "dms", "delete", "documented")
def test_a_delete_tells_nothing_but_its_key() -> None:
    (change,) = changes(event("delete", {"id": 4, "title": None})).changes
    assert change.columns == {}


def test_pretty_and_one_line_json_are_the_same() -> None:
    text = compact(event("insert", {"id": 4})) or b""
    assert changes(b"\n  " + text.replace(b",", b",\n  ") + b"\n") == changes(text)


def by(context: DecodeContext, value: Any, **fields: Any) -> Changes:
    decoded = decode(record(value, **fields), context)
    assert isinstance(decoded, Changes), decoded
    return decoded


@pytest.mark.covers(("postgresql", "mysql", "sqlserver", "oracle"), "dms", "key change", "documented")
def test_old_values_in_columns_of_the_row_are_a_before_image() -> None:
    context = dataclasses.replace(CONTEXT, before_image="BI_*")
    gone, here = by(context, event("update", {"id": 45, "BI_id": 46, "title": "x", "BI_title": "w"})).changes
    assert (gone.key, here.key, here.old_key) == ('{"id":46}', '{"id":45}', '{"id":46}')
    assert here.columns == {"id": 45, "title": "x"}
    (same,) = by(context, event("update", {"id": 45, "BI_id": 45})).changes
    (unlogged,) = by(context, event("update", {"id": 45, "BI_id": None})).changes
    (blind,) = by(context, event("update", {"id": 45})).changes
    assert [change.hides_old_key for change in (same, unlogged, blind)] == [False, False, True]
    (inserted,) = by(context, event("insert", {"id": 1, "BI_id": None, "BI_": 2})).changes
    assert (inserted.columns, inserted.complete) == ({"id": 1, "BI_": 2}, True)
    (kept,) = changes(event("insert", {"id": 1, "BI_id": None})).changes
    assert kept.columns == {"id": 1, "BI_id": None}


def test_the_field_of_old_values_has_any_name() -> None:
    context = dataclasses.replace(CONTEXT, before_image="old")
    moved = by(context, event("update", {"id": 45}) | {"old": {"id": 46}}).changes
    assert [change.op for change in moved] == ["d", "u"]


def without_details(operation: str, data: Any, at: str = "2026-03-01T10:00:01.123456Z") -> dict[str, Any]:
    document = event(operation, data, timestamp=at)
    del document["metadata"]["stream-position"], document["metadata"]["commit-timestamp"]
    return document


@pytest.mark.covers(("mysql", "sqlserver", "oracle"), "dms", "snapshot", "documented")
def test_without_transaction_details_the_order_of_the_stream_ranks() -> None:
    (late,) = changes(without_details("update", {"id": 1}), position="10").changes
    (early,) = changes(without_details("insert", {"id": 1}), position="9").changes
    (loaded,) = changes(event("load", {"id": 1}), position="11").changes
    (detailed,) = changes(event("update", {"id": 1}), position="1").changes
    assert loaded.sequence < early.sequence < late.sequence < detailed.sequence
    assert late.commit_time_us == 1772359201123456


@pytest.mark.covers(("postgresql", "mysql", "sqlserver", "oracle"), "dms", "reload", "documented")
@pytest.mark.parametrize("at", ["2026-03-01T10:00:00Z", "2026-03-01T10:00:01Z"])
def test_rows_loaded_in_an_epoch_rank_between_changes_before_and_in_it(at: str) -> None:
    start = round(dt.datetime.fromisoformat(at).timestamp() * 1_000_000)
    context = dataclasses.replace(CONTEXT, epoch_starts_us=(start,))
    before = {"commit-timestamp": "2026-03-01T09:59:59.999999Z"}
    for old, new in [
        (event("delete", {"id": 1}, **before), event("update", {"id": 1})),
        (without_details("delete", {"id": 1}, "2026-03-01T09:59:59.999999Z"), without_details("update", {"id": 1})),
    ]:
        read = [by(context, old, position="9"), by(context, event("load", {"id": 1}), position="0")]
        read.append(by(context, new, position="1"))
        end = decode(record_of_epoch("kinesis", "public.docs", start), context)
        assert isinstance(end, Changes)
        old_delete, load, update = (decoded.changes[0].sequence for decoded in read)
        assert old_delete < end.changes[0].sequence < load < update
        assert end.changes[0].op == "t"


def test_an_epoch_that_is_not_configured_any_more_ends_nothing() -> None:
    decoded = decode(record_of_epoch("kinesis", "public.docs", 5), CONTEXT)
    assert isinstance(decoded, Reject)
    assert decoded.condition == "EPOCH_UNKNOWN"


BINLOG = "mysql-bin-changelog.{}:{}:{}:{}:9324410911751:mysql-bin-changelog.{}:{}"


def binlog(file: int, at: int, row: int = 0, following: int | None = None, begin: int | None = None) -> str:
    name = f"{file:06}"
    return BINLOG.format(
        name, at, row, at + 62 if following is None else following, name, at - 62 if begin is None else begin
    )


def sequence_of(place: str) -> str:
    return changes(event("update", {"id": 1}, **{"stream-position": place})).changes[0].sequence


def test_places_in_a_binary_log_compare_as_numbers() -> None:
    places = [
        binlog(2171, 99, -1),
        binlog(2171, 99),
        binlog(2171, 99, 10),
        binlog(2171, 36912271),
        binlog(999999, 4, begin=4),
    ]
    ordered = [sequence_of(place) for place in [*places, binlog(1000000, 4, begin=4)]]
    assert ordered == sorted(set(ordered))


@pytest.mark.parametrize(
    ("place", "form"),
    [
        ("mysql-bin.000001:4", "`a-a.9:9`"),
        ("0000001c:00000260:0003", "`9a:9:9`"),
        ("88124592", "`9`"),
        (88124592, "of type int"),
        (binlog(7, 200, following=150), "outside of its transaction"),
        (binlog(7, 200, begin=250), "outside of its transaction"),
        (binlog(7, 200).replace("000007:138", "000006:138"), "outside of its transaction"),
        ("00000002/7C007328.2.00000002", "`9/9a9.9.9`"),
        (None, "nothing"),
    ],
)
def test_an_unknown_form_of_position_is_rejected_with_its_form(place: Any, form: str) -> None:
    decoded = decode(record(event("update", {"id": 1}, **{"stream-position": place})), CONTEXT)
    assert isinstance(decoded, Reject)
    assert (decoded.condition, form in decoded.message) == ("NO_SEQUENCE", True), decoded.message
    assert "88124592" not in decoded.message


@pytest.mark.covers(("postgresql", "mysql", "sqlserver", "oracle"), "dms", "type", "documented")
@pytest.mark.parametrize(
    ("digits", "key"),
    [
        (b"1.234567890123456789E+18", '{"id":1234567890123456789}'),
        (b"1234567890123456789", '{"id":1234567890123456789}'),
        (b"1.23456789012345678E18", None),
        (b"1E+18", None),
    ],
)
def test_a_key_in_scientific_notation_is_exact_or_a_reject(digits: bytes, key: str | None) -> None:
    value = (compact(event("insert", {"id": 0})) or b"").replace(b'"id":0', b'"id":' + digits)
    decoded = decode(record(value), CONTEXT)
    if key:
        assert isinstance(decoded, Changes)
        assert decoded.changes[0].key == key
    else:
        assert isinstance(decoded, Reject)
        assert (decoded.condition, "UseLargeIntegerValue" in decoded.message) == ("BAD_VALUE", True)
    image = (compact(event("update", {"id": 1}) | {"before-image": {"id": 0}}) or b"").replace(
        b'"id":0', b'"id":' + digits
    )
    assert isinstance(decode(record(image), CONTEXT), Changes if key else Reject)


def test_an_integer_that_lost_digits_is_a_reject_of_its_column() -> None:
    table = TableContext("public.docs", ("id",), {"n": "bigint"})
    context = DecodeContext("dms", {"public.docs": table})
    row = b'"n":1.2345678901234567E+18,"whole":1'
    value = (compact(event("insert", {"id": 1, "n": 0})) or b"").replace(b'"n":0', row)
    (change,), (reject,), _ = dataclasses.astuple(by(context, value))
    assert (change[4], change[6]) == ({"id": 1, "whole": 1}, ("n",))
    assert "scientific notation" in reject[1]


@pytest.mark.covers(("postgresql", "sqlserver", "oracle"), "dms", "type", "documented")
def test_values_as_text_and_in_hexadecimal_take_the_form_of_their_type() -> None:
    table = TableContext(
        "public.docs", ("id",), {"a": "bytes", "b": "bytes", "ok": "boolean", "no": "boolean", "bit": "boolean"}
    )
    context = DecodeContext("dms", {"public.docs": table})
    row = {"id": 1, "a": "0xDEADBEEF", "b": "DEADBEEF", "ok": "true", "no": "FALSE", "bit": 1}
    (change,) = by(context, event("insert", row)).changes
    assert change.columns == {"id": 1, "a": "3q2+7w==", "b": "3q2+7w==", "ok": True, "no": False, "bit": True}
    assert canonical({"raw": "DEADBEEF"}, {"raw": dms_type({"type": "BLOB"})}) == {"raw": "3q2+7w=="}
    bad = by(context, event("insert", {"id": 1, "a": "no hexadecimal"}))
    assert [reject.column for reject in bad.unfit] == ["a"]


@pytest.mark.covers(("mysql", "sqlserver"), "dms", "large value", "documented")
@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("x" * 1024, 1), ("x" * 512, 1), ("é" * 512, 1), ("x" * 256, 1), ("0x" + "ab" * 1024, 1), ("x" * 1023, 0),
        ("x" * 1025, 0), ("€" * 341 + "x", 1), ("x" * 511, 0),
    ],
)  # fmt: skip
def test_a_value_of_exactly_the_limit_is_counted(text: str, cut: int) -> None:
    context = dataclasses.replace(CONTEXT, lob_limit=1024)
    assert by(context, event("insert", {"id": 1, "title": text})).at_lob_limit == cut
    assert changes(event("insert", {"id": 1, "title": text})).at_lob_limit == 0


def control(operation: str, table: str = "docs", *, definition: Any = None, **metadata: Any) -> Any:
    document = event(
        operation, None, **{"record-type": "control", "partition-key-type": "task-id", "table-name": table} | metadata
    )
    detail = {"table-def": definition} if definition else {}
    return decode(record({"control": detail, "metadata": document["metadata"]}), CONTEXT)


@pytest.mark.covers(("postgresql", "mysql", "sqlserver", "oracle"), "dms", "drift", "documented")
@pytest.mark.parametrize(
    "operation",
    [
        "create-table", "drop-table", "add-column", "drop-column", "rename-column", "change-columns", "column-type-change",
    ],
)  # fmt: skip
def test_control_records_are_counted_and_announce_what_they_define(operation: str) -> None:
    for detail in (None, {"columns": {"id": {"type": "INT8"}}, "primary-key": ["id"]}):
        decoded = control(operation, definition=detail)
        assert isinstance(decoded, Ignored)
        assert decoded.reason == f"control {operation}"
        assert (decoded.schema is None) == (detail is None)
    assert isinstance(control(operation, "other"), Ignored)
    without_schema: dict[str, Any] = {"schema-name": ""}
    assert isinstance(control(operation, "awsdms_apply_exceptions", **without_schema), Ignored)


@pytest.mark.covers("postgresql", "dms", ("truncate", "drift"), "documented")
def test_a_renamed_or_truncated_table_and_an_unknown_control_record_are_seen() -> None:
    for operation, condition in [("rename-table", "TABLE_RENAMED"), ("split-table", "NOT_AN_ENVELOPE")]:
        assert control(operation).condition == condition
        assert isinstance(control(operation, "other"), Ignored)
    nothing: dict[str, Any] = {"stream-position": None}
    nowhere = control("truncate-table", **nothing)
    assert (nowhere.condition, "ragstream epoch" in nowhere.message) == ("TRUNCATE_WITHOUT_PLACE", True)
    (truncation,) = control("truncate-table").changes
    (before,) = changes(event("update", {"id": 1}, **{"stream-position": POSITION.replace(".2.", ".1.")})).changes
    (after,) = changes(event("update", {"id": 1}, **{"stream-position": POSITION.replace(".2.", ".3.")})).changes
    assert before.sequence < truncation.sequence < after.sequence


def test_tables_of_one_topic_and_names_in_upper_case_are_told_apart() -> None:
    tables = ("HR.STAFF", "HR.staff", "shop.items")
    context = DecodeContext(
        "dms", {name: TableContext(name, ("ID",) if name[-1] == "F" else ("id",)) for name in tables}
    )
    for name in tables:
        owner, _, table = name.partition(".")
        key = context.tables[name].keys[0]
        (change,) = by(context, event("load", {key: 1}, **{"schema-name": owner, "table-name": table})).changes
        assert (change.table, change.key) == (name, f'{{"{key}":1}}')


@pytest.mark.covers("postgresql", "dms", ("type", "drift"), "documented")
def test_a_control_record_announces_types_and_deletes_nothing() -> None:
    table = {"columns": {"id": {"type": "INT32"}, "price": {"type": "NUMERIC", "precision": 10, "scale": 2}}}
    metadata = event("create-table", None)["metadata"] | {"record-type": "control"}
    decoded = decode(record({"control": {"table-def": table | {"primary-key": ["id"]}}, "metadata": metadata}), CONTEXT)
    assert isinstance(decoded, Ignored)
    assert decoded.schema is not None
    assert decoded.schema.columns == {"id": "int", "price": "decimal(10,2)"}
    dropped = decode(record({"control": {}, "metadata": metadata | {"operation": "drop-table"}}), CONTEXT)
    assert isinstance(dropped, Ignored)


@pytest.mark.parametrize(
    ("value", "condition"),
    [
        (b"{", "MALFORMED_JSON"),
        ({"data": {}}, "NOT_AN_ENVELOPE"),
        (event("merge", {"id": 1}), "NOT_AN_ENVELOPE"),
        (event("update", {"title": "x"}), "NO_KEY"),
    ],
)
def test_poison_is_a_reject(value: Any, condition: str) -> None:
    decoded = decode(record(value), CONTEXT)
    assert isinstance(decoded, Reject)
    assert decoded.condition == condition


def test_tables_nobody_configured_are_counted_and_left() -> None:
    decoded = decode(record(event("insert", {"id": 1}, **{"table-name": "other"})), CONTEXT)
    assert isinstance(decoded, Ignored)
    context = dataclasses.replace(CONTEXT, others=frozenset({"public.other"}))
    assert isinstance(decode(record(event("insert", {"id": 1}, **{"table-name": "other"})), context), Reject)


@pytest.mark.covers("postgresql", "dms", "type", "documented")
@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("array<int>", "{1,2,NULL}", [1, 2, None]),
        ("array<int>", "{{1,2},{3,4}}", [[1, 2], [3, 4]]),
        ("array<int>", "[0:1]={5,6}", [5, 6]),
        ("array<text>", '{a,"b,c",NULL,"NULL","x\\"y\\\\z",ü☃}', ["a", "b,c", None, "NULL", 'x"y\\z', "ü☃"]),
        ("array<text>", "{}", []),
        ("array<text>", "no array", "no array"),
        ("array<text>", "{cut", "{cut"),
        ("array<text>", ["a"], ["a"]),
        ("timestamptz", "2026-02-03T03:05:06.789", "2026-02-03T03:05:06.789Z"),
        ("timestamptz", "2026-02-03T03:05:06+01:00", "2026-02-03T03:05:06+01:00"),
    ],
)
def test_a_declared_type_says_what_dms_does_not(kind: str, text: Any, value: Any) -> None:
    convert = converter(kind)
    assert convert is not None
    assert convert(text) == value
    assert convert(convert(text)) == value

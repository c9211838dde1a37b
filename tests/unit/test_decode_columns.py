"""One value spoils no row, and one record no job: what does not fit is its column's reject, whatever was announced."""

from __future__ import annotations

import base64
import time
import tracemalloc
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.landing.decoding import decoded
from lake.tables.typed import UnfitError, into
from schemas.changes import Change, Changes, Reject
from schemas.records import Record
from tests.recorded import compact
from tests.unit.test_lake_decoding import columns
from transforms.context import DecodeContext, TableContext
from transforms.envelopes.decode import decode
from transforms.fold import Rows, apply
from transforms.values import exact_json
from transforms.values.types import _BY_NAME, _CONNECT, _DMS, _POSTGRESQL, connect_type, spark_type

TABLE = "public.t"
DEBEZIUM = DecodeContext("debezium", {TABLE: TableContext(TABLE, ("id",))})
SOURCE = {"connector": "postgresql", "schema": "public", "table": "t", "lsn": 7, "ts_us": 5_000_000}
ID = {"field": "id", "type": "int32", "optional": False}


def field(column: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"field": column, "type": kind, "optional": True} | more


def event(fields: list[dict[str, Any]], after: dict[str, Any], op: str = "c", /, **source: Any) -> bytes:
    block = {"type": "struct", "fields": [{"field": "after", "type": "struct", "fields": [ID, *fields]}]}
    side = "before" if op == "d" else "after"
    value = compact({"schema": block, "payload": {side: {"id": 1} | after, "source": SOURCE | source, "op": op}})
    assert value is not None
    return value


def dms(row: dict[str, Any], operation: str = "insert", **more: Any) -> bytes:
    metadata = {
        "record-type": "data", "operation": operation, "schema-name": "public", "table-name": "t",
        "timestamp": "2026-03-01T10:00:01Z", "commit-timestamp": "2026-03-01T10:00:01Z",
        "stream-position": "00000002/7C007328.2.00000002/7C007328",
    }  # fmt: skip
    value = compact({"data": {"id": 1} | row, "metadata": metadata} | more)
    assert value is not None
    return value


def record(value: bytes) -> Record:
    return Record("t", "0", "3", None, value)


def landed(value: bytes, context: DecodeContext = DEBEZIUM) -> Changes:
    answer = decode(record(value), context)
    assert isinstance(answer, Changes), answer
    return answer


MICROS = field("at", "int64", name="io.debezium.time.MicroTimestamp")
BODY = field("body", "string")


def test_value_that_does_not_fit_is_its_columns_reject_and_row_lands() -> None:
    answer = landed(event([MICROS, BODY], {"at": 2**63 - 1, "body": "kept"}))
    (change,) = answer.changes
    assert change.columns == {"id": 1, "body": "kept"}
    assert (change.complete, change.unavailable) == (False, ("at",))
    (reject,) = answer.unfit
    assert (reject.condition, reject.stage, reject.column) == ("BAD_VALUE", "decode", "at")
    assert (reject.key, reject.sequence) == (change.key, change.sequence)
    assert "at of public.t" in reject.message
    assert str(2**63 - 1) not in reject.message


def test_the_column_keeps_its_older_value_and_is_pending_without_one() -> None:
    older = landed(event([MICROS], {"at": 0}))
    newer = landed(event([MICROS], {"at": 2**63 - 1}, "u", lsn=8))
    rows = Rows()
    apply(rows, newer.changes[0])
    assert rows['{"id":1}'].unresolved(["id", "at"]) == ("at",)
    apply(rows, older.changes[0])
    assert rows['{"id":1}'].values() == {"id": 1, "at": "1970-01-01T00:00:00"}


def test_a_key_that_does_not_fit_rejects_the_record() -> None:
    key = field("id", "int64", name="io.debezium.time.MicroTimestamp")
    answer = decode(record(event([key], {"id": 2**63 - 1})), DEBEZIUM)
    assert isinstance(answer, Reject)
    assert (answer.condition, answer.column) == ("BAD_VALUE", None)


def test_a_deletion_asks_for_nothing_but_its_key() -> None:
    answer = landed(event([MICROS], {"at": 2**63 - 1}, "d"))
    assert (answer.changes[0].op, answer.unfit) == ("d", ())


def test_a_declared_type_is_a_columns_reject_in_dms_as_well() -> None:
    context = DecodeContext("dms", {TABLE: TableContext(TABLE, ("id",), {"day": "date"})})
    inserted, updated = (landed(dms({"day": 2**40}, how), context) for how in ("insert", "update"))
    moved = landed(dms({"day": 2**40}, "update", **{"before-image": {"id": 0}}), context)
    for answer in (inserted, updated, moved):
        assert [reject.column for reject in answer.unfit] == ["day"]
        assert answer.changes[-1].columns == {"id": 1}
        assert (answer.changes[-1].complete, answer.changes[-1].unavailable) == (False, ("day",))
    assert [change.op for change in moved.changes] == ["d", "u"]


def test_a_landed_record_and_the_rejects_of_its_columns_are_counted_apart() -> None:
    bad = event([MICROS, BODY], {"at": 2**63 - 1, "body": [[]]})
    read = [record(bad), record(event([MICROS], {"at": 1})), record(b"{"), record(bad)]
    answer = decoded(columns(read), DEBEZIUM)
    assert (answer.tally.landed.total(), answer.tally.rejected.total(), answer.tally.records) == (3, 1, 4)
    assert answer.tally.unfit == {TABLE: 2}
    assert answer.unfit.field("record").to_pylist() == [0, 3]
    assert answer.unfit.field("column").to_pylist() == ["at", "at"]


@pytest.mark.parametrize("depth", [101, 2_000, 9_000])
@pytest.mark.parametrize("envelope", ["debezium", "debezium with its schema", "dms"])
def test_a_value_nested_too_deep_is_its_columns_reject(depth: int, envelope: str) -> None:
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    context = DecodeContext("dms", DEBEZIUM.tables) if envelope == "dms" else DEBEZIUM
    value = {
        "dms": dms({"body": "HERE"}),
        "debezium": compact({"after": {"id": 1, "body": "HERE"}, "source": SOURCE, "op": "c"}),
    }
    template = value.get(envelope) or event([BODY], {"body": "HERE"})
    answer = landed(template.replace(b'"HERE"', deep), context)
    assert [(reject.column, reject.condition) for reject in answer.unfit] == [("body", "BAD_VALUE")]
    assert landed(template.replace(b'"HERE"', b"[" * 100 + b"]" * 100), context).unfit == ()


@pytest.mark.parametrize(
    "number", ["1e1000000", "-1E+999999999", "1e-1000000", "9" * 5_000, "9" * 500_000, "0." + "3" * 500_000]
)
def test_a_number_of_any_length_takes_no_time_and_is_kept(number: str) -> None:
    kinds = {name: TableContext(TABLE, ("id",), {"n": name}) for name in ("int", "bigint", "numeric", "decimal(38,2)")}
    began = time.process_time()
    for table in kinds.values():
        for context in (DecodeContext("debezium", {TABLE: table}), DecodeContext("dms", {TABLE: table})):
            for written in (number, f'"{number}"'):
                template = dms({"n": "HERE"}) if context.envelope == "dms" else event([], {"n": "HERE"})
                answer = landed(template.replace(b'"HERE"', written.encode()), context)
                kept = answer.changes[0].columns["n"]
                assert Decimal(kept) == Decimal(number)
                for kind in ("int", "bigint", "decimal(38,2)", "double", "string"):
                    fits(kept, kind)
    assert time.process_time() - began < 5


def test_a_number_in_bytes_has_the_digits_a_numeric_has() -> None:
    wide = field("n", "bytes", name="org.apache.kafka.connect.data.Decimal", parameters={"scale": "2"})
    answer = landed(event([wide], {"n": base64.b64encode(b"\x01" + bytes(60_000)).decode()}))
    assert answer.changes[0].columns["n"] == Decimal(256**60_000).scaleb(-2, exact_context())
    assert landed(event([wide], {"n": base64.b64encode(b"\x01" + bytes(62_000)).decode()})).unfit
    assert landed(event([wide], {"n": "no base64"})).unfit


def exact_context() -> Any:
    from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context

    return Context(prec=MAX_PREC, Emin=MIN_EMIN, Emax=MAX_EMAX)


@pytest.mark.parametrize("micros", [10**18, -62_135_596_800_000_001, 253_402_300_800_000_000, 10**30])
def test_a_commit_outside_the_calendar_is_a_reject(micros: int) -> None:
    answer = decode(record(event([], {}, ts_us=micros)), DEBEZIUM)
    assert isinstance(answer, Reject)
    assert answer.condition == "BAD_COMMIT_TIME"
    for last in (-62_135_596_800_000_000, 253_402_300_799_999_999):
        assert landed(event([], {}, ts_us=last)).changes[0].commit_time_us == last


@pytest.mark.parametrize(
    ("source", "position"),
    [
        ({"lsn": -1}, "3"),
        ({"lsn": 2**64}, "3"),
        ({"lsn": True}, "3"),
        ({"sequence": '["18446744073709551616","1"]'}, "3"),
        ({"sequence": "[1e1000000,1]"}, "3"),
        ({"sequence": '["-1","1"]'}, "3"),
        ({}, "-3"),
        ({}, "3:-1"),
        ({}, "9" * 70),
        ({"connector": "mysql", "file": "binlog.000001", "pos": -4}, "3"),
        ({"connector": "mysql", "file": "binlog.99999999999999999999", "pos": 4}, "3"),
        ({"connector": "mysql", "file": "binlog", "pos": 4}, "3"),
        ({"connector": "mysql"}, "3"),
        ({"connector": "db2", "commit_lsn": "00000027:00000ac0:0002"}, "3"),
    ],
)
def test_a_position_that_is_none_is_a_reject(source: dict[str, Any], position: str) -> None:
    answer = decode(record(event([], {}, **source))._replace(position=position), DEBEZIUM)
    assert isinstance(answer, Reject)
    assert answer.condition == "NO_SEQUENCE"
    connector = source.get("connector")
    assert connector in {None, "mysql"} or f"connector {connector} " in answer.message


def test_binlog_positions_rank_by_file_number_position_and_row() -> None:
    at = [("binlog.999999", 9, 0), ("binlog.1000000", 4, 0), ("binlog.1000000", 4, 1), ("binlog.1000000", 40, 0)]
    events = [event([], {}, connector="mysql", file=f, pos=p, row=r) for f, p, r in at]
    sequences = [landed(value).changes[0].sequence for value in events]
    assert sequences == sorted(sequences)
    assert len(set(sequences)) == len(sequences)


def test_a_null_of_a_log_with_whole_rows_is_null() -> None:
    flags = field("flags", "bytes", name="io.debezium.data.Bits", parameters={"length": "8"})
    update = landed(event([flags], {"flags": None}, "u", connector="mysql", file="binlog.000001", pos=4))
    assert update.changes[0].columns == {"id": 1, "flags": None}
    assert landed(event([flags], {"flags": None}, "u")).changes[0].unavailable == ("flags",)


@pytest.mark.parametrize(
    ("frame", "names"),
    [(b"\0\0\0\0\7\2\x08a", "Confluent"), (b"\3\0" + bytes(16) + b"\2", "Glue"), (b"\3\5" + bytes(16) + b"{", "Glue")],
)
def test_a_registrys_frame_around_no_json_names_the_setting_that_mends_it(frame: bytes, names: str) -> None:
    answer = decode(record(frame), DEBEZIUM)
    assert isinstance(answer, Reject)
    assert answer.condition == "REGISTRY_FRAMED"
    assert names in answer.message
    assert "value.converter" in answer.message


@pytest.mark.parametrize("frame", [b"\0\0\0\0\7", b"\0" + bytes(8), b"\3\0" + bytes(16)])
def test_json_in_a_frame_is_read_with_its_key(frame: bytes) -> None:
    value = compact({"before": None, "source": SOURCE, "op": "d"}) or b""
    answer = decode(record(frame + value)._replace(key=frame + b'{"id":5}'), DEBEZIUM)
    assert isinstance(answer, Changes)
    assert answer.changes[0].key == '{"id":5}'


def fits(value: Any, kind: str) -> None:
    """Take a value as a column of the lake takes it, or refuses it."""
    try:
        assert (into(value, kind) is None) == (value is None)
    except UnfitError:
        return


LENGTHS = st.sampled_from([0, 1, 8, 64, 2**31 - 1])
PARAMETERS = st.fixed_dictionaries(
    {"length": LENGTHS.map(str), "scale": st.sampled_from(["0", "2", "-3", "99999"])},
    optional={
        "__debezium.source.column.type": st.sampled_from(
            [*_POSTGRESQL, "NUMERIC", "BIT", "VARBIT", "BIGINT UNSIGNED", "YEAR"]
        ),
        "__debezium.source.column.length": LENGTHS.map(str),
        "connect.decimal.precision": LENGTHS.map(str),
    },
)
NAMES = [*_BY_NAME, "io.debezium.time.Year", None]
SCALARS = st.builds(
    lambda name, kind, parameters: {"type": kind, "name": name, "parameters": parameters},
    st.sampled_from(NAMES), st.sampled_from([*_CONNECT, "struct", "map"]), PARAMETERS,
)  # fmt: skip
TYPES = st.one_of(SCALARS, SCALARS.map(lambda items: {"type": "array", "items": items}))
EDGES = [
    edge * sign + near
    for edge in (0, 2**31, 2**63, 9_223_372_036_825_200, 9_223_372_036_825_200_000, 2_147_472_692, 10**400)
    for sign in (1, -1)
    for near in (-1, 0, 1)
]
LEAVES = st.one_of(
    st.booleans(),
    st.integers(),
    st.sampled_from(EDGES),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=40),
    st.binary(max_size=40).map(lambda raw: base64.b64encode(raw).decode()),
    st.sampled_from(
        ["1e1000000", "NaN", "infinity", "-5877611-06-21Z", "0001-01-01T00:00:00Z", "{{1,2},{NULL}}", "{" * 90, "0xff"]
    ),
    st.builds(
        lambda scale, value: {"scale": scale, "value": value}, st.integers(), st.sampled_from(["AQ==", "", "?", 7])
    ),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)

PLAIN = st.sampled_from([*_DMS.values(), "numeric", "timestamptz", "json"])
DECLARED = st.one_of(PLAIN, PLAIN.map("array<{}>".format))


def whole_or_rejected(value: Any, payload: bytes, context: DecodeContext, canonical: str) -> None:
    """Decoding raises nothing, allocates in proportion, and the value is kept or its column rejected."""
    tracemalloc.start()
    answer = decode(record(payload), context)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000 + 40 * len(payload)
    assert isinstance(answer, Changes)
    change: Change = answer.changes[-1]
    kept, rejected = change.columns.get("x"), [reject.column for reject in answer.unfit]
    assert (kept is None) == (rejected == ["x"])
    exact_json.dumps(dict(change.columns))
    fits(kept, spark_type(canonical))
    assert value is not None


@settings(max_examples=300, deadline=1000)
@given(kind=TYPES, value=VALUES)
def test_any_value_of_any_announced_type_is_kept_or_its_columns_reject(kind: dict[str, Any], value: Any) -> None:
    canonical, _ = connect_type(kind)
    whole_or_rejected(value, event([{"field": "x"} | kind], {"x": value}), DEBEZIUM, canonical)


@settings(max_examples=150, deadline=1000)
@given(kind=DECLARED, value=VALUES)
def test_any_value_of_any_dms_type_is_kept_or_rejects_its_column(kind: str, value: Any) -> None:
    context = DecodeContext("dms", {TABLE: TableContext(TABLE, ("id",), {"x": kind})})
    whole_or_rejected(value, dms({"x": value}), context, kind)

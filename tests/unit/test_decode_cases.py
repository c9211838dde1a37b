"""Histories that pipelines are known to spoil, in `tests/cases/` as their sources send them: what our tables make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from lake.history.current import TableFold, row_of
from lake.tables.observed_types import canonical
from schemas.changes import Changes, Decoded, Ignored
from sources.files.recorded import parse_line
from transforms.context import DecodeContext, TableContext
from transforms.envelopes.decode import decode

CASES = Path(__file__).parents[1] / "cases"
TABLES = (
    "public.eras", "public.contracts", "public.flags", "public.framed", "public.carts", "shop.shifts", "public.rtoast",
    "public.visits",
)  # fmt: skip
CONTEXT = DecodeContext("debezium", {name: TableContext(name, ("id",)) for name in TABLES})


def decoded_case(name: str, form: Literal["kafka", "kinesis"] = "kafka") -> list[Decoded]:
    lines = (CASES / f"{name}.jsonl").read_bytes().splitlines()
    return [decode(parse_line(line, form, name=name, start=0), CONTEXT) for line in lines]


def rows(read: list[Decoded]) -> list[dict[str, Any]]:
    fold = TableFold()
    for decoded in read:
        assert isinstance(decoded, Changes), decoded
        assert not decoded.unfit
        for change in decoded.changes:
            fold.add(change)
    return [row_of(state, list(state.columns), {}) for _, state in sorted(fold.live().items())]


@pytest.mark.covers("postgresql", "debezium", "type", "recorded")
def test_times_of_any_year_keep_their_meaning() -> None:
    first, before_christ, late = rows(decoded_case("early_and_late_times"))
    assert (first["ts"], first["d"], first["t"]) == ("0001-01-01T00:00:00", "0001-01-01", "24:00:00")
    assert (before_christ["ts"], before_christ["d"]) == ("-0043-03-15T12:00:00", "-0043-03-15")
    assert (late["ts"], late["d"], late["t"]) == ("+10000-01-01T00:00:00", "+10000-01-01", "23:59:59.999999")
    assert late["tz"] == "+10000-01-01T00:00:00Z"


@pytest.mark.covers("postgresql", "debezium", "type", "recorded")
def test_infinity_is_infinity_in_every_precision() -> None:
    ever, never, finite = rows(decoded_case("infinity_in_milliseconds"))
    assert {ever[name] for name in ("valid_us", "valid_ms", "valid_tz", "until")} == {"infinity"}
    assert {never[name] for name in ("valid_us", "valid_ms", "valid_tz", "until")} == {"-infinity"}
    assert finite["valid_ms"] == "2024-02-29T12:34:56.789000"


@pytest.mark.covers("mysql", "debezium", "type", "documented")
def test_mysql_has_an_order_and_its_own_types() -> None:
    """mysql-binlog-connector-java#154 and others: TIME is a signed duration, BIGINT UNSIGNED has 64 bits."""
    early, edited = rows(decoded_case("mysql_types"))
    assert early == {"id": 1, "big": 2**64 - 1, "t": "-01:30:00", "y": 2026, "zero": None, "ok": True}
    assert edited == {"id": 2, "big": 8, "t": "00:00:00", "y": 1901, "zero": "1970-01-01", "ok": False}
    inserted = decoded_case("mysql_types")[1]
    assert isinstance(inserted, Changes)
    assert inserted.changes[0].columns["t"] == "838:59:59"


@pytest.mark.covers("postgresql", "debezium", "type", "recorded")
def test_an_announced_length_pads_no_further_than_the_bits_that_came() -> None:
    (row,) = rows(decoded_case("varbit_without_length"))
    assert (row["bits8"], row["perms"]) == ("00000101", "101")


@pytest.mark.covers("postgresql", "debezium", "large value", "recorded")
def test_unchanged_bytes_that_base64_mode_sends_null_for_stay() -> None:
    """debezium#5353, as Debezium 3.5 sends it."""
    before, after = (rows(decoded_case("unchanged_bytea")[:count])[0] for count in (1, 2))
    assert after == before | {"note": "second"}
    assert after["body"].startswith("xMpCOKC5")


def test_records_that_name_partitions_are_rows_of_the_table_of_their_topic() -> None:
    """wal2json#259, debezium#6538."""
    assert rows(decoded_case("partition_names")) == [{"id": number, "page": f"/p{number}"} for number in range(3)]


def test_json_in_a_registrys_frame_is_read() -> None:
    assert rows(decoded_case("registry_framing")) == [{"id": 1, "name": "framed"}]


def test_debezium_servers_empty_tombstone_is_ignored() -> None:
    *changed, tombstone = decoded_case("kinesis_empty_tombstone", "kinesis")
    assert tombstone == Ignored("tombstone")
    assert rows(changed) == [{"id": 2, "v": "b"}]


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("timestamp", 9_223_372_036_825_200_000, "infinity"),
        ("timestamp", "+294247-01-10T04:00:25.2Z", "infinity"),
        ("date", "-5877611-06-22Z", "-infinity"),
        ("date", -622_191_233, "infinity"),
    ],
)
def test_infinity_is_told_by_evidence_that_comes_later_as_well(kind: str, value: Any, text: str) -> None:
    assert canonical({"x": value}, {"x": kind}) == {"x": text}

"""Dates and times of every precision mode of Debezium 3.5, as recorded from live connectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from transforms.values.columns import converted
from transforms.values.times import (
    MICROS,
    MILLIS,
    NANOS,
    OutOfRangeError,
    date_from_days,
    iso,
    time_from,
    timestamp_from,
)
from transforms.values.types import connect_type

DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        (MILLIS, 9_223_372_036_825_200, "infinity"),
        (MILLIS, -9_223_372_036_832_400, "-infinity"),
        (MICROS, 9_223_372_036_825_200_000, "infinity"),
        (MICROS, -9_223_372_036_832_400_000, "-infinity"),
        (NANOS, 2**63 - 1, "infinity"),
        (NANOS, -(2**63), "-infinity"),
        (MILLIS, 9_224_286_393_600_000, "+294276-01-01T00:00:00"),  # PostgreSQL's last year
        (MILLIS, -210_866_803_200_000, "-4713-11-24T00:00:00"),  # its first day
        (MICROS, -1, "1969-12-31T23:59:59.999999"),
        (MICROS, -62_135_596_800_000_000, "0001-01-01T00:00:00"),
        (MICROS, -62_135_596_800_000_001, "0000-12-31T23:59:59.999999"),
        (MICROS, 253_402_300_799_999_999, "9999-12-31T23:59:59.999999"),
        (NANOS, 1_709_210_096_789_012_000, "2024-02-29T12:34:56.789012"),
        (NANOS, 1_709_210_096_789_012_300, "2024-02-29T12:34:56.789012300"),
        (MILLIS, True, True),
        (MILLIS, "2024-02-29T12:34:56Z", "2024-02-29T12:34:56"),
        (MILLIS, 1.5, 1.5),
    ],
)
def test_timestamps(unit: int, value: Any, text: Any) -> None:
    assert timestamp_from(unit)(value) == text


@pytest.mark.parametrize(
    ("unit", "value"),
    [
        (MICROS, 2**63 - 1),  # as recorded of 294276-01-01: TimeUnit.toMicros stops at the last one
        (MICROS, -(2**63) + 499_999),  # the same, half a second later
        (MILLIS, 2**63),
        (NANOS, -(2**63) - 1),
        (MILLIS, 10**4000),
    ],
)
def test_a_timestamp_that_its_source_cannot_have_is_none(unit: int, value: int) -> None:
    with pytest.raises(OutOfRangeError) as caught:
        timestamp_from(unit)(value)
    assert str(value) not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-2_147_472_692, "infinity"),  # streamed
        (-2_147_472_691, "-infinity"),
        (-622_191_234, "infinity"),  # in a snapshot, in the zones of America and at UTC
        (-622_191_233, "infinity"),  # and east of Greenwich
        (-625_821_272, "-infinity"),
        (-625_821_271, "-infinity"),
        ("-5877611-06-21Z", "infinity"),
        ("-5877611-06-22Z", "-infinity"),
        ("+292278994-08-16Z", "infinity"),
        ("+292269055-12-03Z", "-infinity"),
        (-719_162, "0001-01-01"),
        (-735_160, "-0043-03-15"),
        (106_762_574, "+294276-01-01"),
        (2_145_042_905, "+5874897-12-31"),  # PostgreSQL's last day
        ("+294276-01-01Z", "+294276-01-01"),
    ],
)
def test_dates(value: Any, text: str) -> None:
    assert date_from_days(value) == text
    assert not isinstance(value, str) or iso(value) == text


def test_a_date_wider_than_its_type_is_none() -> None:
    with pytest.raises(OutOfRangeError):
        date_from_days(2**31)


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        (MILLIS, DAY_MS, "24:00:00"),
        (MICROS, DAY_MS * 1000, "24:00:00"),
        (NANOS, DAY_MS * 1_000_000, "24:00:00"),
        (MICROS, 86_399_999_999, "23:59:59.999999"),
        (MICROS, -5_400_000_000, "-01:30:00"),
        (MICROS, -45_296_789_012, "-12:34:56.789012"),
        (MICROS, 3_020_399_000_000, "838:59:59"),
        (MICROS, -3_020_399_000_000, "-838:59:59"),
        (MILLIS, "24:00:00Z", "24:00:00"),
    ],
)
def test_times_of_day_and_long_ones(unit: int, value: Any, text: str) -> None:
    assert time_from(unit)(value) == text


RECORDED = (Path(__file__).parents[1] / "cases" / "precision_modes.jsonl").read_text().splitlines()
MOMENTS = ("ts", "ts0", "ts3", "tz", "d", "ds", "tss")


@pytest.mark.parametrize("line", RECORDED, ids=[f"{r['mode']}-{r['snapshot']}" for r in map(json.loads, RECORDED)])
def test_a_row_as_each_mode_sends_it(line: str) -> None:
    """Infinity in every mode; other times where the connector itself keeps them.

    It does not: out of 1677 to 2262 in nanoseconds, 24:00 as ISO text, and before 1582 in a snapshot and in arrays.
    """
    recorded = json.loads(line)
    converters = {f["field"]: convert for f in recorded["fields"] if (convert := connect_type(f)[1])}
    rows = {name: converted(dict(row), converters) for name, row in recorded["rows"].items()}
    for infinite in ("infinity", "-infinity"):
        values = rows[infinite].values
        assert [values[name] for name in MOMENTS] == [infinite] * 5 + [[infinite]] * 2
    nanoseconds, late, last = recorded["mode"] == "nanoseconds", rows["10000"], rows["last"]
    assert {late.values["d"], late.values["ds"][0]} == {"+10000-01-01"}
    assert nanoseconds or {late.values["ts"], late.values["tss"][0]} == {"+10000-01-01T00:00:00"}
    assert last.values["d"] == "+5874897-12-31"
    assert set(last.unfit) == ({"ts", "ts0", "ts3", "tss"} if recorded["mode"] == "microseconds" else set())
    assert recorded["snapshot"] or rows["44 BC"].values["d"] == "-0043-03-15"
    assert recorded["snapshot"] or nanoseconds or rows["44 BC"].values["ts"] == "-0043-03-15T12:00:00"
    infinite_values = rows["infinity"].values
    midnight = "00:00:00" if recorded["mode"] == "isostring" else "24:00:00"
    assert {infinite_values["t"], infinite_values["t0"], infinite_values["t3"]} == {midnight}
    assert (infinite_values["vb"], infinite_values["vb8"], infinite_values["b8"]) == ("101", "101", "00101101")

"""Recorded Debezium events as records, byte for byte as the JSON converter writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from schemas.records import Record
from sources.files.recorded import parse_line
from transforms.context import DecodeContext, TableContext

FIXTURES = Path(__file__).parent / "fixtures" / "debezium"
DMS_FIXTURES = FIXTURES.parent / "dms"
"""What the stand-in for DMS wrote to Kinesis of PostgreSQL 18's own log."""
KEYS = {
    "inv.items": ("id",), "inv.items_full": ("id",), "inv.order_lines": ("order_id", "line_no"),
    "inv.Mixed Case": ("Id",), "inv.edge": ("id",),
    "shop.items": ("id",), "shop.order_lines": ("order_id", "line_no"), "shop.Mixed Case": ("Id",), "shop.late": ("id",),
    "shop.later": ("id",), "shop.dbo.items": ("id",), "HR.STAFF": ("ID",), "shop.kinds": ("id",), "shop.parts": ("id",),
}  # fmt: skip
CONTEXT = DecodeContext(
    "debezium",
    {table: TableContext(table, keys) for table, keys in KEYS.items()},
    ignored=frozenset({"inv.dbz_signal", "inv.hb", "shop.dbz_signal", "shop.nopk"}),
)

DMS_CONTEXT = DecodeContext(
    "dms", {table: TableContext(table, KEYS[table]) for table in ("inv.items", "inv.order_lines")}
)


def compact(value: Any) -> bytes | None:
    """JSON as the converter writes it; None for a tombstone."""
    return None if value is None else json.dumps(value, separators=(",", ":")).encode()


def records(name: str) -> Iterator[Record]:
    """The records of one recording."""
    for line in (FIXTURES / f"{name}.jsonl").read_text().splitlines():
        r = json.loads(line)
        headers = tuple((h, v.encode() if v is not None else None) for h, v in r["headers"])
        yield Record(
            r["topic"],
            str(r["partition"]),
            str(r["offset"]),
            compact(r["key"]),
            compact(r["value"]),
            headers,
            r["timestamp"],
        )


def dms_records(name: str) -> Iterator[Record]:
    """The records of one recording of DMS's."""
    for line in (DMS_FIXTURES / f"{name}.jsonl").read_bytes().splitlines():
        yield parse_line(line, "kinesis", name=name, start=0)

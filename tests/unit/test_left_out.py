"""A stream that fills while nothing of it is decoded is said, in the log once and where a person asks."""

from __future__ import annotations

import datetime as dt
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lake.landing.batch import create_tables
from lake.landing.decoding import Tally
from lake.landing.unconfigured import REASON, LeftOut, LeftOutLog, left_out
from lake.layout import LakeLayout
from lake.storage import append_rows
from lake.table_schemas import CHANGES, IGNORED

NOW = dt.datetime.now(dt.UTC)


def rows(schema: pa.Schema, *partial_rows: dict[str, Any]) -> pa.Table:
    common = dict.fromkeys(schema.names) | {"_ingest_time": NOW, "_ingest_date": NOW.date()}
    return pa.Table.from_pylist(
        [{n: v for n, v in (common | row).items() if n in schema.names} for row in partial_rows], schema
    )


def ignored(stream: str, table: str, records: int, **more: Any) -> dict[str, Any]:
    return {"stream": stream, "_table": table, "reason": REASON, "records": records} | more


def test_streams_are_said_by_the_share_that_was_left_out_of_late(tmp_path: Path) -> None:
    layout = LakeLayout(str(tmp_path))
    create_tables(layout)
    append_rows(
        layout.path("changes"), rows(CHANGES, *[{"stream": name} for name in ("few", "many") for _ in range(20)])
    )
    old = NOW - dt.timedelta(days=2)
    append_rows(
        layout.path("ignored"),
        rows(
            IGNORED,
            ignored("few", "public.other", 2),
            ignored("many", "public.visits_1", 7),
            ignored("many", "public.visits_2", 3),
            ignored("many", "", 10, reason="heartbeat"),
            ignored("mended", "public.tickets", 50),
            ignored("old", "public.other", 50, _ingest_time=old),
        ),
    )
    (stream,) = left_out(layout, lambda table: table == "public.tickets")
    assert stream == LeftOut("many", 40, Counter({"public.visits_1": 7, "public.visits_2": 3}))
    assert stream.sentence.startswith(
        "many: 10 of 40 records are of tables that are not configured: public.visits_1, public."
    )


def test_a_lake_without_tables_leaves_nothing_out(tmp_path: Path) -> None:
    assert left_out(LakeLayout(str(tmp_path)), lambda _: False) == []


def test_log_says_a_stream_once_and_one_with_few_such_records_never(caplog: pytest.LogCaptureFixture) -> None:
    log = LeftOutLog()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            tally = Tally(read=Counter(few=100, many=100))
            tally.ignored.update({("few", "0", "a.b", REASON): 9, ("many", "0", "a.c", REASON): 10})
            tally.ignored["many", "0", "", "heartbeat"] = 90
            log.add(tally)
    (said,) = caplog.records
    assert said.__dict__["context"] == {"stream": "many", "tables": ["a.c"], "records": 10, "read": 100}

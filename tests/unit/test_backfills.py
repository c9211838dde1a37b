"""What stores lack of a stream, as records beside the checkpoints, and where they go on without it."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from glue_jobs.continuous.backfills import Backfills, Gap
from glue_jobs.continuous.gaps import without_gaps
from glue_jobs.storage import files
from sources import SourceConfig
from sources.kafka.offsets import Offsets
from sources.retained import Holds

_SOURCES = TypeAdapter[SourceConfig](SourceConfig)
KAFKA = _SOURCES.validate_python(
    {"type": "kafka", "envelope": "debezium", "bootstrap_servers": "127.0.0.1:9092", "topics": ["t"]}
)
KINESIS = _SOURCES.validate_python({"type": "kinesis", "envelope": "dms", "stream": "s"})
FILES = _SOURCES.validate_python(
    {"type": "files", "format": "kafka", "envelope": "debezium", "path": ["/data/events.jsonl"]}
)
SOURCES = [KAFKA, KINESIS]


def test_a_store_is_new_once_and_forgotten_when_it_is_dropped(tmp_path: Path) -> None:
    backfills = Backfills(str(tmp_path))
    assert backfills.register(["a", "b"], SOURCES, fresh=True) == []
    assert backfills.register(["a", "b", "c"], SOURCES, fresh=False) == ["c"]
    assert backfills.register(["a", "b", "c"], SOURCES, fresh=False) == []
    (record,) = backfills.read().values()
    assert (record.store, record.gaps) == ("c", {"kafka": Gap(None, None), "kinesis": Gap(None, None)})
    assert backfills.register(["a", "b"], SOURCES, fresh=False) == []
    assert (backfills.read(), backfills.known()) == ({}, {"a", "b"})
    assert backfills.register(["a", "b", "c"], SOURCES, fresh=False) == ["c"]
    older = Backfills(str(tmp_path / "older"))
    assert older.register(["a"], SOURCES, fresh=False) == [], "no pipeline begins by filling all"


def test_a_new_store_lacks_all_until_where_its_live_writes_began_first(tmp_path: Path) -> None:
    backfills = Backfills(str(tmp_path))
    backfills.register(["a"], SOURCES, fresh=True)
    backfills.register(["a", "new"], SOURCES, fresh=False)
    backfills.begin("kafka", {"a": {"t/0": 3}, "new": {"t/0": 7}})
    backfills.begin("kafka", {"new": {"t/0": 50}})  # started again after a kill: that it has
    record = Backfills(str(tmp_path)).read()["new"]
    assert record.gaps == {"kafka": Gap(None, {"t/0": 7}), "kinesis": Gap(None, None)}
    assert record.spans() is None, "all rows"


def test_gaps_add_up_and_end_only_with_all_they_cover(tmp_path: Path) -> None:
    backfills = Backfills(str(tmp_path))
    backfills.add("a/b", "kafka", Gap({"t/0": 98}, {"t/0": 120}))
    seen = backfills.read()["a/b"]
    backfills.add("a/b", "kafka", Gap({"t/0": 100, "t/1": 4}, {"t/0": 130, "t/1": 9}))
    assert not backfills.done(seen)
    backfills.add("a/b", "kinesis", Gap({"s/x": 5}, {"s/x": 6}))
    record = Backfills(str(tmp_path)).read()["a/b"]
    assert record.spans() == {"t/0": (98, 130), "t/1": (4, 9), "s/x": (5, 6)}
    assert record.since == seen.since
    backfills.add("a/b", "kinesis", Gap(None, {"s/y": 7}))
    assert backfills.read()["a/b"].spans() is None
    assert backfills.done(backfills.read()["a/b"])
    assert json.dumps(backfills.read()) == "{}"


def aside(folder: Path, store: str, **changes: Any) -> None:
    record = {
        "store": store, "since": 5.0, "phase": "aside", "returning_since": 0.0, "added": False, "read_before": {},
        "missed": [["t", "0", "98", "120"], ["s", "x", "77:3", "99:0"], ["dropped", "0", "1", "2"]],
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / f"{store}.json").write_text(json.dumps(record | changes))


def test_what_was_quarantined_before_is_backfilled_from_the_first_missed_position(tmp_path: Path) -> None:
    backfills, folder = Backfills(str(tmp_path)), tmp_path / "aside"
    backfills.register(["away", "added"], SOURCES, fresh=True)
    aside(folder, "away")
    aside(folder, "added", added=True, phase="returning", missed=[])
    aside(folder, "dropped")
    assert backfills.register(["away", "added"], SOURCES, fresh=False) == []
    assert list(folder.iterdir()) == []
    records = backfills.read()
    assert {name: record.since for name, record in records.items()} == {"away": 5.0, "added": 5.0}
    assert records["away"].gaps == {"kafka": Gap({"t/0": 98}, None), "kinesis": Gap({"s/x": 77}, None)}
    assert records["added"].gaps == {"kafka": Gap(None, None), "kinesis": Gap(None, None)}
    backfills.begin("kafka", {"away": {"t/0": 130, "t/1": 8}})
    backfills.begin("kinesis", {"away": {"s/child": 500}})
    assert backfills.read()["away"].gaps["kafka"] == Gap({"t/0": 98}, {"t/0": 130, "t/1": 8})
    assert backfills.read()["away"].gaps["kinesis"] == Gap(None, {"s/child": 500}), "its shard is forgotten"
    aside(folder, "away")
    backfills.register(["away", "added"], [FILES], fresh=False)
    assert backfills.read()["away"].gaps == {"files": Gap(None, None)}, "a recorded file names no partition"


def held_from(**first: int) -> Holds:
    return lambda partition, position: position >= first.get(partition.replace("/", ""), 0)


def never() -> Holds:
    raise AssertionError("nobody lags behind another")


@pytest.mark.parametrize(
    ("first", "stores", "goes_on", "gaps"),
    [
        ({"t0": 5}, {"a": {"t/0": 9}, "b": {"t/0": 5}}, {}, {}),
        ({"t0": 5}, {"a": {"t/0": 9}, "b": {"t/0": 4}}, {"b": {"t/0": 9}}, {"b": Gap({"t/0": 4}, {"t/0": 9})}),
        (
            {"t0": 5, "t1": 5},
            {"a": {"t/0": 9, "t/1": 2}, "b": {"t/0": 1, "t/1": 7}},
            {"a": {"t/0": 9, "t/1": 7}, "b": {"t/0": 9, "t/1": 7}},
            {"a": Gap({"t/1": 2}, {"t/1": 7}), "b": Gap({"t/0": 1}, {"t/0": 9})},
        ),
        ({"t0": 9}, {"a": {"t/0": 3}, "b": {"t/0": 4}}, {}, {}),
        (
            {"x": 9, "sx": 9},
            {"a": {"s/child": 20}, "b": {"s/x": 8}, "c": {"s/child": 30}},
            {"b": {"s/child": 20}},
            {"b": Gap(None, {"s/child": 20})},
        ),
        ({"t0": 5}, {"only": {"t/0": 1}}, {}, {}),
    ],
    ids=["held", "lost to one", "crosswise", "lost to all", "shards came and went", "alone"],
)
def test_a_store_whose_next_records_are_lost_goes_on_where_another_is(
    first: dict[str, int], stores: dict[str, dict[str, int]], goes_on: Mapping[str, Any], gaps: dict[str, Gap]
) -> None:
    assert without_gaps(stores, lambda: held_from(**first)) == ({**stores, **goes_on}, gaps)


def test_stores_that_are_at_one_place_ask_nobody() -> None:
    same: Offsets = {"a": {"t/0": 9}, "b": {"t/0": 9}}
    assert without_gaps(same, never) == (same, {})


def test_a_record_that_is_written_while_another_thread_looks_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backfills, names = Backfills(str(tmp_path)), files.names
    adding = threading.Thread(target=backfills.add, args=("late", "kafka", Gap({"t/0": 1}, {"t/0": 2})))

    def slow_names(folder: str) -> list[str]:
        before = names(folder)
        if not adding.ident:
            adding.start()
            adding.join(0.2)
        return before

    monkeypatch.setattr(files, "names", slow_names)
    backfills.read()
    adding.join()
    assert backfills.stores == {"late"}, "else it would be said to be fresh"

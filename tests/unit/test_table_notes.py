"""What `check` and `status` say of tables, from what the jobs counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner

from glue_jobs import land_changes
from glue_jobs.cli.status import status
from glue_jobs.config.pipeline import PipelineConfig, decode_context, load_config
from glue_jobs.runtime import Report
from glue_jobs.status import table_notes
from glue_jobs.status.record import StatusRecords
from lake.landing.decoding import decoded
from schemas.records import Record

METADATA = {
    "record-type": "data", "operation": "update", "schema-name": "public", "table-name": "t",
    "timestamp": "2026-03-01T10:00:01.123456Z", "commit-timestamp": "2026-03-01T10:00:01Z",
    "stream-position": "00000002/7C007328.2.00000002/7C007328",
}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    source = {"type": "files", "format": "kinesis", "envelope": "dms", "path": ["events.jsonl"]}
    table = {"table": "public.t", "keys": ["id"], "document": {"template": "{title}\n{body}", "metadata": ["kind"]}}
    settings = {"name": "p", "source": source, "tables": [table], "lake": {"path": str(tmp_path / "lake")}}
    config_path = tmp_path / "pipeline.yaml"
    config_path.write_text(json.dumps(settings | {"checkpoint": str(tmp_path / "checkpoint")}))
    return config_path


def landed(config: PipelineConfig, *events: dict[str, Any]) -> Report:
    """What landing counts of events."""
    read = [Record("s", "0", str(at), None, json.dumps(event).encode()) for at, event in enumerate(events)]
    plain = [
        pa.array([r.stream for r in read]),
        pa.array([r.partition for r in read]),
        pa.array([r.position for r in read]),
    ]
    raw = [pa.array([r.key for r in read], pa.binary()), pa.array([r.value for r in read], pa.binary())]
    headers = pa.array([None] * len(read), pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())])))
    return land_changes.report_of(decoded([*plain, *raw, headers], decode_context(config, "files")).tally)


def test_updates_without_an_old_key_are_counted_and_the_setting_named(path: Path) -> None:
    config, records = load_config(path), StatusRecords(load_config(path).checkpoint)
    update = {"data": {"id": 5, "title": "x"}, "metadata": METADATA}
    records.begin("land_files")
    records.add("land_files", 0, landed(config, update | {"before-image": {}}), 1.0)
    records.end()
    assert table_notes.notes(config) == []
    blind = landed(config, update, update | {"before-image": {"id": 4}}, {"data": {"id": "é"}, "metadata": METADATA})
    for _ in range(2):  # the same batch again
        records.add("land_files", 1, blind, 1.0)
    records.end()
    (note,) = table_notes.notes(config)
    assert note.startswith("public.t: 2 updates came without a before-image")
    assert "BeforeImageSettings" in note
    printed = CliRunner().invoke(status, [str(path)])
    assert note in printed.output
    counted = json.loads(CliRunner().invoke(status, [str(path), "--json"]).output)["tables"]["public.t"]
    assert counted["updates_without_before_image"] == 2


def test_a_missing_column_is_said_while_the_document_names_it(path: Path) -> None:
    config, records = load_config(path), StatusRecords(load_config(path).checkpoint)
    records.begin("index_files")
    records.add("index_files", 0, Report(columns_missing={"public.t": ("01", ["kind", "old"])}), 1.0)
    records.end()
    sentence = "public.t: its newest complete row has no column 'kind', which its document names"
    assert table_notes.notes(config) == [sentence]
    assert table_notes.notes(config, {"files"}) == [], "the captured database was asked, and knows better"
    printed = CliRunner().invoke(status, [str(path)]).output
    assert sentence in printed
    assert "'old'" not in printed

"""Recorded histories through every job: cut, shuffled and repeated as one likes, the same content.

Among them are a body edit and a status edit of one row, in every order and cut.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from local_stack.models.service import ModelService
from local_stack.stack import Stack
from tests.e2e.pipeline import VIEW, Pipeline, embedding, running
from tests.e2e.recorded_changes import KINDS, line, rows_of
from tests.e2e.rows import documents_of
from tests.history import TABLE, ModelTable
from tests.recorded import FIXTURES, KEYS
from transforms.values import exact_json

CANARY = "kanarienvogel-7f3a"
POISON: list[dict[str, Any]] = [
    {"topic": "pg15_schemas.inv.items", "key": {"id": 1}, "value": {"title": CANARY}, "partition": 0, "offset": 90_001},
    {"topic": "pg15_schemas.inv.items", "key": None, "value": CANARY, "partition": 0, "offset": 90_002},
]
TABLES = [table for table in KEYS if table != "inv.edge"]
LONG = "eight kilobytes of an article, cut into several pieces. " * 150
FIRST_BATCH = 120


def edited() -> tuple[ModelTable, list[str], list[str]]:
    """A table, and its events in two batches: both edits of rows 1 and 2 in one, those of 3 and 4 in two, 2 and 4 swapped."""
    table = ModelTable()
    for number in range(1, 6):  # the last one keeps its text
        table.insert(number, "old")
    inserts = list(table.changes)
    body, status = {}, {}
    for number in range(1, 5):
        table.update_body(number, LONG + str(number))
        body[number] = table.changes[-1]
        table.update_a(number, "closed")
        status[number] = table.changes[-1]
    edits = [body[1], status[1], status[2], body[2], body[3], status[4], status[3], body[4]]
    lines = [line(change, at) for at, change in enumerate(inserts + edits)]
    return table, lines[:-2], lines[-2:]


def history(folder: Path, name: str, seed: int | None) -> Path:
    """The recorded history with edits and poison in it: as it was, or shuffled with a third of it repeated."""
    lines = (FIXTURES / "pg15_schemas.jsonl").read_text().splitlines()
    _, before, after = edited()
    cut = FIRST_BATCH - len(before)
    lines[cut:cut] = before + after
    lines += [json.dumps(event | {"timestamp": 1, "headers": []}) for event in POISON]
    if seed is not None:
        r = random.Random(seed)
        lines += r.choices(lines[: -len(POISON)], k=len(lines) // 3)
        r.shuffle(lines)
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def pipeline(folder: Path, stack: Stack, dsn: str, model_url: str, seed: int | None, batch: int) -> Pipeline:
    document = {"template": "{name}\n\n{body}", "metadata": ["m", "s", "colour"], "chunk": {"max_tokens": 120}}
    source = {"type": "files", "format": "kafka", "envelope": "debezium", "max_records_per_trigger": batch}
    with_document = {"inv.items", "inv.items_full"}
    folder.mkdir()
    configuration: dict[str, Any] = {
        "name": "files",
        "source": source | {"path": [str(history(folder, "events", seed))]},
        "tables": [
            {"table": t, "keys": list(KEYS[t])} | ({"document": document} if t in with_document else {}) for t in TABLES
        ]
        + [{"table": TABLE, "keys": ["id"], "document": document | {"template": "{body}", "metadata": ["a"]}}],
        "lake": {"path": str(folder / "lake")},
        "checkpoint": str(folder / "checkpoint"),
        "embedding": embedding(model_url, model="cohere.embed-v4:0"),
        "sinks": [{"type": "pgvector", "dsn": dsn, "table": VIEW}],
    }
    return Pipeline(folder, configuration, mark=str(stack.directory))


def store(dsn: str) -> list[tuple[Any, ...]]:
    """All that a reader of the store sees, vectors included."""
    with psycopg.connect(dsn) as connection:
        columns = "table_name, key::text, metadata::text, chunk_index, chunk_text, embedding::text"
        return connection.execute(f"SELECT {columns} FROM {VIEW} ORDER BY 1, 2, 4".encode()).fetchall()


def lake(run: Pipeline) -> dict[str, list[dict[str, Any]]]:
    """Every recorded table as it is now; the edited one is as its model."""
    config, (table, _, _) = run.table_config(TABLE), edited()
    rows, _ = rows_of(table)(config)
    assert run.rows(TABLE, KINDS) == rows
    assert run.documents(TABLE, KINDS) == documents_of(rows, config)
    return {table: run.current(table) for table in TABLES}


@pytest.mark.covers(
    "postgresql", "debezium", ("snapshot", "delete", "key change", "truncate", "large value", "drift"), "recorded"
)
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_history_leaves_the_same_content_however_it_is_cut(
    tmp_path: Path, local_stack: Stack, vectors_dsn: str, instant_model: ModelService
) -> None:
    model_url = instant_model.endpoint["endpoint_url"]
    first = pipeline(tmp_path / "first", local_stack, vectors_dsn, model_url, None, FIRST_BATCH)
    with running(first):
        assert first.drain("--jobs", "land,index").process.returncode == 0, first.drivers[-1].log.read_text()[-3000:]
        as_it_was, rows = store(vectors_dsn), lake(first)
        with_text = {row[1] for row in as_it_was if row[0] != TABLE}
        assert with_text == {f'{{"id": {n}}}' for n in (4, 100, 103)}
        printed = first.command("table", "inv.items")
        assert [exact_json.loads(line) for line in printed.stdout.splitlines()] == rows["inv.items"], printed.stderr
        assert printed.stderr == ""
        check_books(first, lines=len((tmp_path / "first/events.jsonl").read_text().splitlines()))
        check_status(first, as_it_was)
        check_silence(first, vectors_dsn)
    with psycopg.connect(vectors_dsn, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    second = pipeline(tmp_path / "second", local_stack, vectors_dsn, model_url, 5, 97)
    with running(second):
        assert second.drain().process.returncode == 0, second.drivers[-1].log.read_text()[-3000:]
        assert store(vectors_dsn) == as_it_was
        assert lake(second) == rows
        check_merged(second)
        check_lost_lake(second)


def check_merged(run: Pipeline) -> None:
    """merge_tables keeps every table as it is now."""
    kinds = {table: dict.fromkeys(KEYS[table], "text") for table in TABLES} | {TABLE: KINDS}
    for table, known in kinds.items():
        assert run.merged_rows(table, known) == run.rows(table, known)


def check_lost_lake(run: Pipeline) -> None:
    """Without its lake nothing that relies on it begins, or writes."""
    lake, away = run.folder / "lake", run.folder / "away"
    lake.rename(away)
    refused = run.drain()
    assert refused.process.returncode == 2
    assert "belongs to lake" in refused.log.read_text()
    for command in (("reconcile", "--repair"), ("replay",)):
        completed = run.command(*command)
        assert (completed.returncode, "belongs to lake" in completed.stderr) == (2, True), completed.stderr
    assert not lake.exists()
    away.rename(lake)


def check_books(run: Pipeline, lines: int) -> None:
    """Read = landed + rejected + ignored (I6); poison is kept with its bytes and where it was."""
    assert sum(run.accounted().values()) == lines
    columns = ["stage", "condition", "value", "position", "stream"]
    rejects = [row for row in run.delta("rejects", columns) if row["stage"] == "decode"]
    assert {row["condition"] for row in rejects} == {"NOT_AN_ENVELOPE", "MALFORMED_JSON"}
    assert {row["position"] for row in rejects} == {"90001", "90002"}
    assert all(CANARY.encode() in row["value"] for row in rejects)


def check_status(run: Pipeline, stored: list[tuple[Any, ...]]) -> None:
    """`ragstream status` counts what stands in the lake and in the store."""
    printed = run.command("status", "--json")
    assert printed.returncode == 0, printed.stderr
    report = json.loads(printed.stdout)
    assert sum(t["changes"] for t in report["tables"].values()) == len(run.delta("changes", ["position"]))
    rejects = sum(t["rejects"] for t in report["tables"].values()) + report["rejects_without_table"]
    assert rejects == len(run.delta("rejects", ["position"]))
    check_missing_column(run, report)
    store = report["stores"]["pgvector"]
    assert (store["documents"], store["chunks"]) == (len({row[:2] for row in stored}), len(stored))
    assert report["embedding"]["texts"] == len({row[4] for row in stored})
    assert all(query["error"] is None for query in report["queries"].values())


def check_missing_column(run: Pipeline, report: dict[str, Any]) -> None:
    """A column that a document names and no table has is said in the log, in `status` and by `check`."""
    missing = {name: table["columns_missing"] for name, table in report["tables"].items() if table["columns_missing"]}
    assert missing == {"inv.items": ["colour"], "inv.items_full": ["colour"]}
    assert {e["table"] for e in run.drivers[-1].logged("complete rows lack a document's column")} == missing.keys()
    checked = run.command("check")
    assert checked.returncode == 0, checked.stderr
    left = {entry["stream"]: entry for entry in report["unconfigured"]}
    assert left.keys() == {f"pg15_schemas.inv.{name}" for name in ("nopk", "dbz_signal", "hb")}
    assert {e["stream"] for e in run.drivers[-1].logged("records are of tables that are not configured")} == left.keys()
    for stream, entry in left.items():
        assert f"note   {stream}: {entry['records']} of {entry['read']} records are of tables that" in checked.stdout
    for table in missing:
        assert f"note   {table} has no column 'colour', which `document.metadata` names" in checked.stdout


def check_silence(run: Pipeline, dsn: str) -> None:
    """No row text and no secret in logs, status records or Delta's log (I14)."""
    password = re.search(r"://[^:]+:([^@]+)@", dsn)
    assert password
    for log in run.folder.glob("driver-*.log"):
        assert all(line.startswith('{"ts"') for line in log.read_text().splitlines()), (
            "Spark's lines are not the driver's"
        )
    written = [
        *run.folder.glob("driver-*.log"),
        run.folder / "checkpoint/spark.log",
        *run.folder.rglob("status/*.json"),
        *run.folder.rglob("_delta_log/*.json"),
    ]
    assert len(written) > 5
    for path in written:
        text = path.read_text(errors="replace")
        for secret in (CANARY, password[1], "lorem0-0", "with,comma"):
            assert secret not in text, f"{path} tells {secret[:4]}…"

"""A body edit and a status edit of one row, in every order and cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from local_stack.models.service import ModelService
from local_stack.stack import Stack
from schemas.changes import Change
from schemas.tables import TableConfig
from tests.e2e.pipeline import VIEW, Pipeline, embedding, running
from tests.e2e.rows import Kinds, Rows, in_one_form
from tests.history import TABLE, ModelTable
from transforms.values import exact_json

KINDS: Kinds = {"id": "bigint", "a": "text", "body": "text"}
LONG = "eight kilobytes of an article, cut into several pieces. " * 150


def line(change: Change, offset: int) -> str:
    """The recorded event that decodes to a change."""
    lsn = int(change.sequence[4:20], 16)
    source = {"schema": "public", "table": "t", "sequence": f'["{lsn}","{lsn}"]', "ts_us": lsn}
    row = dict(change.columns) | dict.fromkeys(change.unavailable, "__debezium_unavailable_value")
    before = exact_json.loads(change.key) if change.op == "d" else None
    value = {"op": change.op, "before": before, "after": row if change.op in "cur" else None, "source": source}
    moved = {"__debezium.oldkey": change.old_key, "__debezium.newkey": change.new_key}
    headers = [[name, key] for name, key in moved.items() if key]
    event = {"topic": "t", "key": None, "value": value, "partition": 0, "offset": offset, "timestamp": 1}
    return json.dumps(event | {"headers": headers})


def pipeline(folder: Path, events: Path, batch: int, *shared: str) -> dict[str, Any]:
    dsn, model_url, lake = shared
    source = {
        "type": "files",
        "format": "kafka",
        "envelope": "debezium",
        "path": [str(events)],
        "max_records_per_trigger": batch,
    }
    document = {"template": "{body}", "metadata": ["a"], "chunk": {"max_tokens": 200}}
    return {
        "name": "writers",
        "source": source,
        "tables": [{"table": TABLE, "keys": ["id"], "document": document}],
        "lake": {"path": lake, "land_every": "1s", "merge_every": "1s"},
        "checkpoint": str(folder / "checkpoint"),
        "embedding": embedding(model_url, model="cohere.embed-v4:0"),
        "sinks": [{"type": "pgvector", "dsn": dsn, "table": VIEW}],
    }


def rows_of(table: ModelTable) -> Any:
    """The rows of a model as the source would tell them."""

    def source(config: TableConfig) -> tuple[Rows, Kinds]:
        return in_one_form(list(table.rows.values()), config, KINDS), KINDS

    return source


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_body_edit_and_status_edit_both_stay_in_every_cut_and_order(
    tmp_path: Path, local_stack: Stack, vectors_dsn: str, instant_model: ModelService
) -> None:
    table = ModelTable()
    for number in range(1, 5):
        table.insert(number, "old")
    inserts = list(table.changes)
    body, status = {}, {}
    for number in range(1, 5):
        table.update_body(number, LONG + str(number))
        body[number] = table.changes[-1]
        table.update_a(number, "closed")
        status[number] = table.changes[-1]
    # Batches of two: rows 1 and 2 in one batch, 3 and 4 in two; 1 and 3 in order, 2 and 4 the other way round.
    edits = [body[1], status[1], status[2], body[2], body[3], status[4], status[3], body[4]]
    events = tmp_path / "events.jsonl"
    events.write_text("".join(f"{line(change, at)}\n" for at, change in enumerate(inserts + edits)))
    shared = (vectors_dsn, instant_model.endpoint["endpoint_url"], str(tmp_path / "lake"))
    edited = Pipeline(tmp_path / "p", pipeline(tmp_path / "p", events, 2, *shared), mark=str(local_stack.directory))
    with running(edited):
        assert edited.drain().process.returncode == 0, edited.drivers[-1].log.read_text()[-3000:]
        assert edited.wrong(rows_of(table)) == []
        assert all(count == 1 for count in edited.landed().values())

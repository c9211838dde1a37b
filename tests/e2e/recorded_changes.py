"""Changes of a model table as recorded events, and its rows as the source would tell them."""

from __future__ import annotations

import json
from typing import Any

from schemas.changes import Change
from schemas.tables import TableConfig
from tests.e2e.rows import Kinds, Rows, in_one_form
from tests.history import ModelTable
from transforms.values import exact_json

KINDS: Kinds = {"id": "bigint", "a": "text", "body": "text"}


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


def rows_of(table: ModelTable) -> Any:
    """The rows of a model as the source would tell them."""

    def source(config: TableConfig) -> tuple[Rows, Kinds]:
        return in_one_form(list(table.rows.values()), config, KINDS), KINDS

    return source

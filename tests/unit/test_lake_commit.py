"""A commit to the lake while its storage is away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lake.storage import commit, create
from schemas.errors import UnavailableError


@pytest.mark.parametrize("before", [False, True], ids=["before", "after"])
def test_commit_whose_storage_is_away_is_made_once_when_it_is_back(tmp_path: Path, *, before: bool) -> None:
    path, rows = str(tmp_path / "t"), pa.table({"a": [1]})
    create(path, rows.schema, stats="a")
    away = True

    def append(table: DeltaTable, **properties: Any) -> None:
        if not (away and before):
            write_deltalake(table, rows, mode="append", **properties)
        if away:
            raise OSError("error sending request for url")

    transaction = {"txnAppId": "index", "txnVersion": "7"}
    with pytest.raises(UnavailableError, match="cannot be written") as raised:
        commit(path, append, transaction)
    assert "url" not in str(raised.value)
    away = False
    commit(path, append, transaction)
    assert DeltaTable(path).to_pyarrow_table().num_rows == 1

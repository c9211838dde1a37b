"""Stores in the stand-in for DocumentDB, and what tests write into them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr

from local_stack.documentdb import DocumentDB
from schemas.changes import Change
from schemas.documents import Chunk, DocumentWrite
from schemas.errors import PipelineError, UnavailableError
from sinks.documentdb import DocumentDBSink
from sinks.documentdb_config import DocumentDBConfig
from tests.feeding import DIMENSIONS
from tests.history import TABLE, ModelTable, key_of
from transforms.documents import document_id
from transforms.fold import Rows, RowState, apply


def config_of(server: DocumentDB, database: str, **others: Any) -> DocumentDBConfig:
    told: dict[str, Any] = {"uri": SecretStr(server.endpoint["uri"]), "database": database, "collection": "kb"} | others
    return DocumentDBConfig(type="documentdb", **told)


def opened(config: DocumentDBConfig, fingerprint: str = "model=test", dimensions: int = DIMENSIONS) -> DocumentDBSink:
    return DocumentDBSink(config, fingerprint, dimensions)


def one_row() -> ModelTable:
    table = ModelTable()
    table.insert(1, "x")
    return table


def told(change: Change) -> RowState:
    """The state of a row that one change told."""
    rows = Rows(lambda _: None)
    apply(rows, change)
    return rows[change.key]


def write_of(number: int, chunk_hash: str = "h") -> DocumentWrite:
    """The first write of a document with one chunk."""
    table = ModelTable()
    table.insert(number, "x")
    name = document_id(TABLE, key_of(number))
    chunk = Chunk(f"{name}-0", 0, chunk_hash, "text")
    return DocumentWrite(
        name, TABLE, key_of(number), 0, told(table.changes[0]), "r", live=True, chunks=(chunk,), added=(chunk,)
    )


def refused(act: Callable[[], object], message: str, condition: str) -> None:
    with pytest.raises(PipelineError, match=message) as raised:
        act()
    assert (raised.value.condition, raised.value.exit_status) == (condition, 2)
    assert raised.value.hint


def eventually(holds: Callable[[], bool]) -> bool:
    waited = threading.Event()
    return any(holds() or waited.wait(0.05) for _ in range(200))


def went_well(act: Callable[[], object]) -> bool:
    try:
        act()
    except UnavailableError:
        return False
    return True


def too_large() -> DocumentWrite:
    state = told(one_row().changes[0])
    return DocumentWrite("large", TABLE, key_of(2), 0, state, "r", live=True, metadata={"a": "x" * (17 * 1024 * 1024)})

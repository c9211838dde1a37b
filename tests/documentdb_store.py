"""Stores in the stand-in for DocumentDB, and what tests write into them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr

from local_stack.standins.documentdb.server import DocumentDB
from schemas.documents import DocumentWrite
from schemas.errors import PipelineError, UnavailableError
from sinks.documentdb.config import DocumentDBConfig
from sinks.documentdb.writer import DocumentDBSink
from tests.feeding import DIMENSIONS, one_row, row_state
from tests.history import TABLE, key_of


def config_of(server: DocumentDB, database: str, **others: Any) -> DocumentDBConfig:
    values: dict[str, Any] = {
        "uri": SecretStr(server.endpoint["uri"]),
        "database": database,
        "collection": "kb",
    } | others
    return DocumentDBConfig(type="documentdb", **values)


def through(config: DocumentDBConfig, port: int, seconds: float) -> DocumentDBConfig:
    """The same store by another port of this machine, with less patience."""
    uri = SecretStr(f"mongodb://127.0.0.1:{port}/")
    return config.model_copy(update={"uri": uri, "timeout_seconds": seconds})


def opened(config: DocumentDBConfig, fingerprint: str = "model=test", dimensions: int = DIMENSIONS) -> DocumentDBSink:
    return DocumentDBSink(config, fingerprint, dimensions)


def refused(act: Callable[[], object], message: str, condition: str) -> None:
    with pytest.raises(PipelineError, match=message) as raised:
        act()
    assert (raised.value.condition, raised.value.exit_status) == (condition, 2)
    assert raised.value.hint


def went_well(act: Callable[[], object]) -> bool:
    try:
        act()
    except UnavailableError:
        return False
    return True


def too_large() -> DocumentWrite:
    state = row_state(one_row().changes[0])
    return DocumentWrite("large", TABLE, key_of(2), 0, state, "r", live=True, metadata={"a": "x" * (17 * 1024 * 1024)})

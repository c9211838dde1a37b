"""A store in the stand-in for DocumentDB, and what makes the stand-in fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from local_stack.standins.documentdb.server import DocumentDB
from sinks.documentdb.config import DocumentDBConfig
from sinks.documentdb.writer import DocumentDBSink
from tests.documentdb_store import config_of, opened


@pytest.fixture
def config(documentdb: DocumentDB, document_database: str) -> DocumentDBConfig:
    return config_of(documentdb, document_database)


@pytest.fixture
def sink(config: DocumentDBConfig) -> Iterator[DocumentDBSink]:
    with closing(opened(config)) as sink:
        sink.prepare()
        yield sink


@pytest.fixture
def failing(documentdb: DocumentDB) -> Iterator[Callable[..., None]]:
    yield documentdb.fail
    documentdb.fail()

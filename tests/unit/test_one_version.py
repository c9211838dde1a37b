"""What every sink has in common, whichever store it is."""

from __future__ import annotations

import pickle

import pytest
from pydantic import SecretStr

from sinks import SinkConfig, open_sink
from sinks.documentdb.config import DocumentDBConfig
from sinks.opensearch.config import OpenSearchConfig
from sinks.pgvector.config import PgvectorConfig
from sinks.versions import FIRST, IndexVersion
from tests.feeding import DIMENSIONS

CONFIGS = [
    PgvectorConfig(type="pgvector", dsn=SecretStr("host=127.0.0.1 dbname=x"), table="kb"),
    OpenSearchConfig(type="opensearch", url="http://127.0.0.1:1", index="kb"),
    DocumentDBConfig(type="documentdb", uri=SecretStr("mongodb://127.0.0.1:1"), database="x", collection="kb"),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.type)
def test_a_sink_travels_without_its_siblings(config: SinkConfig) -> None:
    opened = open_sink(config, "model=a", DIMENSIONS)
    opened.sibling(IndexVersion(FIRST + 1, "model=b", DIMENSIONS))
    sent = pickle.dumps(opened)
    assert b"model=a" in sent
    assert b"model=b" not in sent

"""Configurations of DocumentDB that cannot work, and what a reader may see."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from sinks.documentdb.config import DocumentDBConfig
from sinks.documentdb.schema import Names, indexes, visible


def config(**others: Any) -> DocumentDBConfig:
    settings: dict[str, Any] = {
        "uri": SecretStr("mongodb://u:secret@127.0.0.1/"),
        "database": "d",
        "collection": "kb",
        **others,
    }
    return DocumentDBConfig(type="documentdb", **settings)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"uri": SecretStr("https://u:secret@h/")}, "uri starts with mongodb://"),
        ({"m": 64, "ef_construction": 64}, "at least twice m"),
        ({"collection": "a$b"}, "collection"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as raised:
        config(**wrong)
    assert "secret" not in str(raised.value)


def test_vectors_have_one_index_and_it_is_what_documentdb_takes() -> None:
    made = indexes(config(), Names("kb"), 384)
    (options,) = [index["vectorOptions"] for index in made["kb_vectors_g1"] if "vectorOptions" in index]
    assert options == {"type": "hnsw", "dimensions": 384, "similarity": "cosine", "m": 16, "efConstruction": 64}


def test_reader_sees_what_is_live_and_newer_than_mark_of_its_table() -> None:
    assert visible({}, {}) == {"live": True}
    wanted = {"live": True, "$nor": [{"table": "t", "sequence": {"$lte": "5"}}], "table": {"$in": ["t"]}}
    assert visible({"t": "5"}, {"table": {"$in": ["t"]}}) == wanted

"""What a store in DocumentDB must be, else exit 2; and what its stand-in refuses, as DocumentDB does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from bson import Int64
from pydantic import SecretStr
from pymongo.errors import OperationFailure

from local_stack.standins.documentdb.server import DocumentDB
from schemas.errors import DocumentRefusedError, UnavailableError
from sinks.documentdb.config import DocumentDBConfig
from sinks.documentdb.reader import DocumentDBIndex
from sinks.documentdb.schema import Names
from sinks.documentdb.writer import DocumentDBSink
from tests.documentdb_store import config_of, opened, refused, too_large
from tests.feeding import DIMENSIONS, Fed, one_row, vector_of

# A store that is not what it should be


@pytest.mark.parametrize("kind", ["documents", "vectors", "meta"])
def test_a_store_that_somebody_else_made_is_refused(
    documentdb: DocumentDB, config: DocumentDBConfig, kind: str
) -> None:
    with documentdb.client() as client:
        client[config.database][getattr(Names("kb"), kind)].insert_one({"mine": 1})
    for act in (DocumentDBSink.check, DocumentDBSink.prepare):
        with closing(opened(config)) as sink:
            refused(lambda: act(sink), "no store of a pipeline", "FOREIGN_COLLECTION")  # noqa: B023 - called at once


def test_a_store_that_lost_a_collection_is_refused(
    documentdb: DocumentDB, config: DocumentDBConfig, sink: DocumentDBSink
) -> None:
    with documentdb.client() as client:
        client[config.database].drop_collection(Names("kb").documents)
    refused(sink.check, "lacks the collection", "STORE_EMPTY")


def test_a_store_that_vanished_is_not_written_into(
    documentdb: DocumentDB, config: DocumentDBConfig, sink: DocumentDBSink
) -> None:
    Fed(sink)(one_row().changes)
    with documentdb.client() as client:
        client.drop_database(config.database)
        refused(lambda: Fed(sink)(one_row().changes), "no store kb", "STORE_EMPTY")
        assert client[config.database].list_collection_names() == []


def test_vectors_of_another_length_than_the_index_are_refused(
    documentdb: DocumentDB, config: DocumentDBConfig, sink: DocumentDBSink
) -> None:
    for fingerprint, dimensions, message, condition in (
        ("model=test", 16, "holds vectors of 8 dimensions", "WRONG_DIMENSIONS"),
        ("model=test", 2001, "2000 dimensions at most", "TOO_MANY_DIMENSIONS"),
        ("model=other", DIMENSIONS, "another model", "OTHER_MODEL"),
    ):
        with closing(opened(config, fingerprint, dimensions)) as other:
            refused(other.check, message, condition)
            refused(other.prepare, message, condition)
    with documentdb.client() as client:
        client[config.database][Names("kb").vectors].drop_index("embedding")
    refused(sink.check, "have no index", "NO_VECTOR_INDEX")


@pytest.mark.usefixtures("sink")
def test_a_store_whose_words_are_of_another_language_is_refused(
    documentdb: DocumentDB, config: DocumentDBConfig
) -> None:
    german = config.model_copy(update={"language": "german"})
    with closing(opened(german)) as other, closing(DocumentDBIndex(german, "model=test")) as index:
        for act in (other.check, other.prepare, index.check):
            refused(act, "stored as english, `language` says german", "OTHER_LANGUAGE")
        with documentdb.client() as client:  # as a store from before languages were noted
            client[config.database][Names("kb").meta].update_one({"_id": "facts"}, {"$unset": {"language": ""}})
        other.check()


@pytest.mark.parametrize(("command", "code"), [("find", 13), ("listCollections", 13), ("find", 18)])
def test_a_right_that_is_missing_is_named(
    config: DocumentDBConfig, failing: Callable[..., None], command: str, code: int
) -> None:
    failing(command, errorCode=code)
    with closing(opened(config)) as sink:
        refused(sink.check, "refuses a right", "MISSING_RIGHTS")


def test_a_document_that_no_store_takes_is_named(sink: DocumentDBSink) -> None:
    with pytest.raises(DocumentRefusedError, match="larger than DocumentDB takes") as raised:
        sink.write([too_large()])
    assert raised.value.condition == "DOCUMENT_TOO_LARGE"


def test_uri_that_cannot_be_used_is_named_and_its_password_stays_secret(documentdb: DocumentDB) -> None:
    for odd in ({"uri": SecretStr("mongodb://u:sec ret@h:x/?tls=true")}, {"tls_ca_file": "nowhere.pem"}):
        with closing(opened(config_of(documentdb, "x", **odd))) as sink:
            refused(sink.check, "cannot be used", "BAD_URI")
    nowhere = config_of(documentdb, "x", uri=SecretStr("mongodb://u:secret@127.0.0.1:1/"), timeout_seconds=0.3)
    with closing(opened(nowhere)) as sink, pytest.raises(UnavailableError, match="does not answer") as raised:
        sink.check()
    assert "secret" not in f"{raised.value}{nowhere!r}"


# The stand-in


@pytest.mark.parametrize(
    "options",
    [
        {"type": "hnsw", "dimensions": 2001, "similarity": "cosine"},
        {"type": "hnsw", "dimensions": 8, "similarity": "manhattan"},
        {"type": "flat", "dimensions": 8, "similarity": "cosine"},
        {"type": "ivfflat", "dimensions": 8, "similarity": "cosine"},
        {"type": "hnsw", "dimensions": 8, "similarity": "cosine", "m": 1},
        {"type": "hnsw", "dimensions": 8, "similarity": "cosine", "m": 64, "efConstruction": 64},
        {"type": "hnsw", "dimensions": 8, "similarity": "cosine", "lists": 4},
        {"similarity": "cosine"},
    ],
)
def test_the_stand_in_refuses_vector_options_that_documentdb_refuses(
    documentdb: DocumentDB, document_database: str, options: dict[str, Any]
) -> None:
    index = {"key": {"embedding": "vector"}, "name": "v", "vectorOptions": options}
    with documentdb.client() as client, pytest.raises(OperationFailure):
        client[document_database].command({"createIndexes": "t", "indexes": [index]})


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"insert": "t", "documents": [{"_id": 1}], "txnNumber": Int64(1)}, 301),
        ({"insert": "t", "documents": [{"_id": 1}], "startTransaction": True, "autocommit": False}, 20),
        ({"update": "t", "updates": [{"q": {}, "u": [{"$set": {"a": 1}}]}]}, 303),
        ({"aggregate": "t", "pipeline": [{"$facet": {}}], "cursor": {}}, 304),
        ({"aggregate": "t", "pipeline": [{"$match": {}}, {"$search": {}}], "cursor": {}}, 2),
        ({"aggregate": "t", "pipeline": [{"$search": {"text": {}}}], "cursor": {}}, 2),
    ],
)
def test_the_stand_in_refuses_what_documentdb_refuses(
    documentdb: DocumentDB, document_database: str, command: dict[str, Any], code: int
) -> None:
    with documentdb.client() as client, pytest.raises(OperationFailure) as raised:
        client[document_database].command(command)
    assert raised.value.code == code


@pytest.mark.parametrize(
    "change", [{"efSearch": 1001}, {"k": 0}, {"filter": {}}, {"similarity": "dotProduct"}, {"vector": [1.0]}]
)
def test_the_stand_in_refuses_a_search_that_does_not_fit_its_index(
    documentdb: DocumentDB, config: DocumentDBConfig, sink: DocumentDBSink, change: dict[str, Any]
) -> None:
    sink.keep_vectors({f"h{n}": vector_of(str(n)) for n in range(60)})
    search = {"vector": [1.0] * DIMENSIONS, "path": "embedding", "similarity": "cosine", "k": 50}
    with documentdb.client() as client:
        vectors = client[config.database][Names("kb").vectors]
        assert len(list(vectors.aggregate([{"$search": {"vectorSearch": search}}]))) == 40
        shown: list[dict[str, Any]] = [
            {"$search": {"vectorSearch": search | {"efSearch": 60}}},
            {"$match": {"_id": {"$ne": "h1"}}},
            {"$limit": 49},
        ]
        embeddings = [document["embedding"] for document in vectors.aggregate(shown)]
        nearness = [sum(vector) for vector in embeddings]
        assert nearness == sorted(nearness, reverse=True)
        with pytest.raises(OperationFailure):
            list(vectors.aggregate([{"$search": {"vectorSearch": search | change}}]))

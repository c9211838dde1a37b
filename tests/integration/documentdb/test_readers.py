"""What readers of a store in DocumentDB find while it is written into, and what its index holds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from itertools import batched

import pytest

from local_stack.standins.documentdb.server import DocumentDB
from sinks.documentdb.config import DocumentDBConfig
from sinks.documentdb.reader import DocumentDBIndex
from sinks.documentdb.schema import Names
from sinks.documentdb.writer import DocumentDBSink
from sinks.search import Filters, Question
from tests.documentdb_store import opened
from tests.feeding import Fed, one_row, vector_of
from tests.history import TABLE, ModelTable
from transforms.filters.parsing import Filterable, parse


def test_a_filter_that_lets_few_documents_through_finds_them_all(
    sink: DocumentDBSink, config: DocumentDBConfig
) -> None:
    table, fed = ModelTable(), Fed(sink)
    for number in range(1500):
        table.insert(number, f"row {number}")
        table.update_a(number, "rare" if number % 100 == 7 else "common")
    for part in batched(table.changes, 500):
        fed(part)
    with closing(DocumentDBIndex(config, "model=test")) as index:
        question = Question("row 7", vector_of("body row 7"))
        rare = index.dense(question, 10, Filters((), (parse("a = rare", Filterable({TABLE: {"a": "text"}})),)))
        assert [hit.metadata["a"] for hit in rare] == ["rare"] * 10
        best = sorted(((vector_of(f"body row {n}") @ question.vector, n) for n in range(7, 1500, 100)), reverse=True)
        assert {hit.key["id"] for hit in rare} == {number for _, number in best[:10]}
        assert index.dense(question, 10, Filters(("elsewhere",))) == []


def test_words_are_found_though_a_writer_has_just_set_their_vector_aside(
    documentdb: DocumentDB, config: DocumentDBConfig, sink: DocumentDBSink
) -> None:
    table, fed = one_row(), Fed(sink)
    fed(table.changes)
    with closing(DocumentDBIndex(config, "model=test")) as index:
        asked = Question("body", vector_of("body"))
        before = index.lexical(asked, 1)
        with documentdb.client() as client:
            client[config.database][Names("kb").vectors].update_many({}, {"$rename": {"embedding": "aside"}})
        assert before
        assert index.lexical(asked, 1) == before


def searchable(server: DocumentDB, config: DocumentDBConfig) -> int:
    with server.client() as client:
        return client[config.database][Names("kb").vectors].count_documents({"embedding": {"$exists": True}})


def test_the_index_holds_the_vectors_of_what_is_live_alone(
    documentdb: DocumentDB, config: DocumentDBConfig, sink: DocumentDBSink
) -> None:
    table, fed = one_row(), Fed(sink)
    for version in range(20):
        table.update_body(1, f"version {version}")
    table.insert(2, "deleted")
    table.insert(3, "truncated")
    table.delete(2)
    for change in table.changes:
        fed([change])
    assert searchable(documentdb, config) == 2
    table.truncate()
    fed(table.changes[-1:])
    sink.sweep()
    assert searchable(documentdb, config) == 0
    kept = dict(sink.vectors_since(0))
    assert len(kept) == 23
    table.insert(4, "version 3")
    asked = len(fed.embedder.texts)
    fed(table.changes[-1:])
    assert (searchable(documentdb, config), len(fed.embedder.texts)) == (1, asked)


@pytest.mark.parametrize("look", [0, 1], ids=["before it is set aside", "after"])
def test_a_vector_that_one_writer_drops_and_another_takes_up_is_found(
    config: DocumentDBConfig, sink: DocumentDBSink, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    table = one_row()
    Fed(sink)(table.changes)
    table.update_body(1, "y")
    table.insert(2, "x")
    looks: list[set[str]] = []
    named = sink._referenced

    with closing(opened(config)) as other, closing(DocumentDBIndex(config, "model=test")) as index:

        def meanwhile(content_hashes: Sequence[str]) -> set[str]:
            if look == len(looks) == 1:
                Fed(other)(table.changes[2:])
            looks.append(named(content_hashes))
            if look == 0 and len(looks) == 1:
                Fed(other)(table.changes[2:])
            return looks[-1]

        monkeypatch.setattr(sink, "_referenced", meanwhile)
        Fed(sink)(table.changes[1:2])
        assert len(looks) == 2
        hits = index.dense(Question("x", vector_of("body x")), 1)
    assert [(hit.key["id"], round(hit.similarity, 5)) for hit in hits] == [(2, 1.0)]

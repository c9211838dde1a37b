"""A document that a model or a store refuses: it is a reject, nothing of it is found, and the others are written."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import psycopg
import pytest

from indexing.missing_vectors import MemoryCache, MissingVectors
from indexing.optimistic_writer import ChangedRows, OptimisticWriter
from schemas.changes import Change
from schemas.errors import ConfigurationError
from sinks.protocol import Sink
from tests.feeding import DIMENSIONS, DOCUMENT, SPECS, CountingEmbedder, Fed, vector_of
from tests.history import TABLE, ModelTable, key_of
from tests.stores import REFUSED, Store, drift
from transforms.documents.planning import DocumentSpec, digest, document_id, is_refused

TWO = key_of(2)


def rows(*numbers: int) -> ModelTable:
    table = ModelTable()
    for number in numbers:
        table.insert(number, f"row {number}, a first version")
    return table


def whole(table: ModelTable, number: int, **columns: Any) -> Change:
    """A change of a row that tells all of it."""
    table.insert(number, "")
    change = table.changes.pop()
    whole_change = Change(TABLE, "u", change.sequence, change.key, {**change.columns, **columns}, complete=True)
    table.changes.append(whole_change)
    return whole_change


def kinds(store: Store, table: ModelTable) -> list[str]:
    return [finding.kind for finding in drift(store, table.changes)]


def marked(sink: Sink) -> int:
    return sum(number for (_, spec_digest), number in sink.documents_by_spec().items() if is_refused(spec_digest))


def test_of_documents_written_together_the_store_refuses_one_and_takes_the_others(store: Store, sink: Sink) -> None:
    table, fed = rows(*range(1, 10)), Fed(sink)
    fed(table.changes)
    with store.refusing() as odd:
        changes = [whole(table, n, a=f"{n}", body=f"row {n}, a second version") for n in (1, 3, 4, 5, 6, 7)]
        changes.append(whole(table, 2, a=odd, body=REFUSED))
        result = fed(changes)
        ((record, reject),) = result.rejected
        assert (reject.stage, reject.table, record.value is not None) == ("store", TABLE, True)
        assert reject.condition in {"STORE_REFUSES_DOCUMENT", "DOCUMENT_TOO_LARGE"}
        assert REFUSED not in reject.message
        contents = store.contents()
        assert TWO not in contents, "its older text is not found either"
        assert {n for n in range(1, 10) if "second" in str(contents.get(key_of(n)))} == {1, 3, 4, 5, 6, 7}
        assert (kinds(store, table), marked(sink)) == (["refused"], 1)
        before = sink.read([document_id(TABLE, TWO)])
        again = fed(changes)
        assert (again.counts["writes"], again.counts["documents refused"]) == (0, 1)
        assert sink.read([*before]) == before, "to be refused once more writes nothing"
    if store.config.type != "documentdb":  # there the value itself is too large, for good
        assert fed(changes[-1:]).counts["writes"] == 1, "the same record again, and the store has its values back"
        assert store.contents()[TWO][1][0][1] == REFUSED
    fed([whole(table, 2, a="fine", body="a third version")])
    assert [text for _, text, _ in store.contents()[TWO][1]] == ["a third version"]
    assert (kinds(store, table), marked(sink)) == ([], 0)


def test_a_new_document_that_is_refused_is_stored_and_not_found(store: Store, sink: Sink) -> None:
    table, fed = ModelTable(), Fed(sink)
    with store.refusing() as odd:
        fed([whole(table, 2, a=odd, body=REFUSED)])
        assert (store.contents(), kinds(store, table), marked(sink)) == ({}, ["refused"], 1)
        table.delete(2)
        fed(table.changes[-1:])
        assert (store.contents(), kinds(store, table), marked(sink)) == ({}, [], 0)


def test_text_model_refuses_does_not_leave_its_older_self_to_be_found(store: Store, sink: Sink) -> None:
    table, fed = rows(1, 2), Fed(sink)
    fed(table.changes)
    table.update_body(2, "is refused by the model")
    result = fed(table.changes[-1:])
    assert [reject.stage for _, reject in result.rejected] == ["embed"]
    assert store.contents().keys() == {key_of(1)}
    assert (kinds(store, table), marked(sink)) == (["refused"], 1)
    asked = len(fed.embedder.texts)
    again = fed(table.changes)
    assert (again.counts["writes"], len(fed.embedder.texts)) == (0, asked), "its refusal is remembered"
    table.update_a(2, "its metadata alone")
    fed(table.changes[-1:])
    assert store.contents().keys() == {key_of(1)}
    table.update_body(2, "is taken")
    fed(table.changes[-1:])
    assert [text for _, text, _ in store.contents()[TWO][1]] == ["body is taken"]
    assert (kinds(store, table), marked(sink)) == ([], 0)


def test_document_longer_than_is_configured_is_refused_before_any_model_is_asked(store: Store, sink: Sink) -> None:
    table, fed = rows(1, 2), Fed(sink)
    fed(table.changes)
    asked = list(fed.embedder.texts)
    fed.change_recipe(DocumentSpec(TABLE, DOCUMENT.model_copy(update={"max_bytes": 1000})))
    table.update_body(2, "word " * 200)
    ((_, reject),) = fed(table.changes[-1:]).rejected
    assert (reject.stage, reject.condition) == ("embed", "DOCUMENT_TOO_LONG")
    assert "document.max_bytes" in reject.message
    assert store.contents().keys() == {key_of(1)}
    assert fed.embedder.texts == asked
    assert kinds(store, table) == ["refused"]


def test_a_cached_vector_that_no_store_finds_is_asked_for_anew(store: Store, sink: Sink) -> None:
    table, embedder = rows(1), CountingEmbedder()
    text = "body row 1, a first version"
    for bad in (np.zeros(DIMENSIONS, "f4"), np.full(DIMENSIONS, np.nan, "f4"), np.ones(3, "f4")):
        writer = OptimisticWriter(MissingVectors(embedder, MemoryCache({digest(text): bad}), 4))
        assert writer.write(sink, ChangedRows({TABLE: table.changes}, SPECS)) == []
    assert embedder.texts == [text]
    ((_, _, vector),) = store.contents()[key_of(1)][1]
    assert np.allclose(vector, vector_of(text), atol=1e-6)


def test_a_store_that_refuses_every_document_blames_none(pgvector: Store) -> None:
    with closing(pgvector.open()) as sink:
        sink.prepare()
        Fed(sink)(rows(1).changes)
        with psycopg.connect(pgvector.config.dsn.get_secret_value(), autocommit=True) as admin:  # type: ignore[union-attr]
            admin.execute(
                "ALTER TABLE kb_g1_documents ADD CONSTRAINT none_new CHECK (revision = 1 AND recipe = 'x') NOT VALID"
            )
        table = rows(1, 2)
        table.update_body(1, "second")
        with pytest.raises(ConfigurationError, match="refuses a value"):
            Fed(sink)(table.changes)
